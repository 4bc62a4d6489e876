"""Ground-truth masks as people have them: names, values, modes, rotation; what is said of them."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ad import InputError
from ad.layouts import Sample, find_samples
from ad.masks import find_masks, marked, read_mask, report_masks
from conftest import write_tiny

SHAPE = np.zeros((40, 60), bool)
SHAPE[10:20, 30:60], SHAPE[30:33, 5:9] = True, True


def drawn(shape, mode, value, rng):
    """The mask in one of the ways in which masks are saved; value: 1 to 255."""
    grey = shape * np.uint8(value)
    if mode == "L":
        return Image.fromarray(grey)
    if mode == "1":
        return Image.fromarray(shape)
    if mode == "colour":
        colour = np.zeros(3, np.uint8)
        colour[rng.integers(3)] = value
        return Image.fromarray(shape[..., None] * colour)
    if mode == "opaque":
        return Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 255)]))
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(grey), Image.new("L", shape.T.shape, 255)])
    if mode == "alpha":  # of any colour, black and white included, on anything transparent
        colours = rng.choice(np.uint8([[0, 0, 0], [255, 255, 255], [200, 30, 0]]), 2)
        return Image.fromarray(np.dstack([np.where(shape[..., None], *colours), grey]))
    if mode == "alpha of LA":
        return Image.merge("LA", [Image.new("L", shape.T.shape, int(rng.choice([0, 255]))),
                                  Image.fromarray(grey)])
    if mode == "palette":  # as VOC's: black, then colours
        image = Image.fromarray(grey).convert("P")
        image.putpalette([0, 0, 0] + rng.integers(1, 256, 765).tolist())
        return image
    deep = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    return Image.fromarray(shape * deep(value))


MODES = {"L": ".png .bmp .tif .gif .pgm", "1": ".png .bmp .tif", "colour": ".png .bmp .tif .ppm",
         "opaque": ".png .tif .webp", "LA": ".png", "alpha": ".png .tif", "alpha of LA": ".png",
         "palette": ".png .bmp .tif .gif", "I;16": ".png .tif", "I": ".tif", "F": ".tiff"}


def mixed(text, flips):
    return "".join(c.upper() if flip else c for c, flip in zip(text, flips))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(list(MODES)), st.integers(1, 255), st.integers(0, 2 ** 31), st.data())
def test_a_mask_of_any_name_mode_and_value_is_the_plain_mask(tmp_path_factory, mode, value, seed,
                                                             data):
    rng = np.random.default_rng(seed)
    base = tmp_path_factory.mktemp("m")
    suffix = data.draw(st.sampled_from(MODES[mode].split()))
    if suffix == ".webp":
        value = 200
    flips = data.draw(st.lists(st.booleans(), min_size=20, max_size=20))
    stem = data.draw(st.sampled_from(["000", "a.b", "x_1", "mask", "00 (2)", "ü", "a_gt"]))
    ending = data.draw(st.sampled_from(["", "_mask", "_gt", "-mask", "_ground_truth", "_label"]))
    shape = rng.random((12, 17)) < rng.uniform(0.05, 0.6)
    shape[0, 0], shape[-1, -1] = False, True
    for folder in ("test/cut", "ground_truth/cut"):
        (base / folder).mkdir(parents=True)
    image = base / "test/cut" / f"{stem}.jpg"
    whole = data.draw(st.booleans()) and ending  # the image's whole name in the mask's
    name = (image.name if whole else stem) + mixed(ending + suffix, flips)
    mask = base / "ground_truth/cut" / name
    drawn(shape, mode, value, rng).save(mask)
    assert find_masks([image]) == {image: mask}
    found = read_mask(mask, *shape.shape)
    assert found.shape == (1, *shape.shape) and (found[0].numpy() == shape).all()


def save(path, shape=SHAPE, turn=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(shape.astype(np.uint8) * 255).save(path, exif=exif)
    return path


def test_masks_are_binary_and_resized(tmp_path):
    read = read_mask(save(tmp_path / "m.png"), 20, 30)
    assert read.shape == (1, 20, 30)
    assert (read[0].numpy() == SHAPE[1::2, 1::2]).all()  # the nearest, as PIL counts


def test_masks_of_another_shape_raise(tmp_path):
    Image.new("L", (60, 40)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", 27, 40).shape == (1, 27, 40)  # 26.7, rounded
    with pytest.raises(InputError, match="m.png: it is 40 x 60 pixels, but its image 60 x 40"):
        read_mask(tmp_path / "m.png", 60, 40)
    (tmp_path / "m.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot read mask .*m.png"):
        read_mask(tmp_path / "m.png", 60, 40)


@pytest.mark.parametrize("turn", range(1, 9))
def test_masks_turn_with_their_image(tmp_path, turn):
    """Stored as the photo is, with and without its EXIF, or as the photo is shown."""
    shown = np.asarray(Image.fromarray(SHAPE.astype(np.uint8)))
    # From the EXIF standard: where row 0 and column 0 of what is stored are when it is shown.
    shown = {1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1], 5: shown.T,
             6: shown.T[:, ::-1], 7: shown[::-1, ::-1].T, 8: shown.T[::-1]}[turn] > 0
    photo = save(tmp_path / "photo.jpg", SHAPE, turn)
    for name, stored, own in (("same", SHAPE, turn), ("upright", shown, 1),
                              ("tagged though upright", shown, turn if turn > 4 else 1),
                              ("untagged", SHAPE, 1)):
        if name == "untagged" and turn in (2, 3, 4):
            continue  # the shape cannot tell: it is taken as the photo is shown
        for suffix in ("png", "tif"):
            if suffix == "tif" and name == "tagged though upright":
                continue  # Pillow turns TIFFs by itself
            mask = save(tmp_path / f"{name}.{suffix}", stored, own)
            assert (read_mask(mask, *shown.shape, photo)[0].numpy() == shown).all(), mask


def test_lossy_masks_and_soft_edges(tmp_path):
    """Noise around 0 is background; what differs from the plain mask is at its edge."""
    shape = np.zeros((80, 80), bool)
    shape[16:48, 24:64] = True
    core = np.zeros_like(shape)
    core[18:46, 26:62] = True
    near = np.zeros_like(shape)
    near[14:50, 22:66] = True
    for value in (90, 128, 255):
        for name, options in (("m.jpg", {"quality": 50}), ("n.jpg", {"quality": 95}),
                              ("m.webp", {"quality": 50}), ("m.jp2", {})):
            Image.fromarray(shape * np.uint8(value)).save(tmp_path / name, **options)
            found = marked(tmp_path / name)[0]
            assert found[core].all() and not found[~near].any(), (name, value)
    Image.fromarray(shape[..., None] * np.uint8((255, 0, 0))).save(tmp_path / "red.jpg")
    found = marked(tmp_path / "red.jpg")[0]
    assert found[core].all() and not found[~near].any()
    noise = np.random.default_rng(0).integers(0, 4, (80, 80), np.uint8)
    Image.fromarray(noise).save(tmp_path / "empty.jpg", quality=95)
    assert not marked(tmp_path / "empty.jpg")[0].any()


def test_images_of_one_name_have_their_own_masks(tmp_path):
    images = [tmp_path / "test/cut" / name
              for name in ("0.jpg", "0.png", "1.jpg", "1.png", "2.png")]
    truth = tmp_path / "ground_truth/cut"
    for name in ("0.png_mask.png", "0.jpg_mask.png", "1_mask.png", "2_mask.png", "2.png",
                 ".2_mask.png"):
        save(truth / name)
    assert {image.name: mask.name for image, mask in find_masks(images).items()} == {
        "0.png": "0.png_mask.png", "0.jpg": "0.jpg_mask.png", "1.png": "1_mask.png",
        "2.png": "2_mask.png"}


def test_masks_are_looked_for_where_the_image_is(tmp_path):
    images = [tmp_path / "test" / name for name in ("a.png", "cut/a.png", "cut/deep/a.png")]
    masks = [save(tmp_path / "ground_truth" / name) for name in
             ("a.png", "cut/a_mask.png", "cut/deep/a_gt.bmp")]
    assert find_masks(images) == dict(zip(images, masks))
    assert find_masks([tmp_path / "elsewhere/a.png"]) == {}
    assert find_masks([tmp_path / "elsewhere/test/cut" / name for name in ("a.png", "a.jpg")]) == {}


def test_odd_masks_are_named_in_a_line_each(tmp_path, capsys):
    root = write_tiny(tmp_path / "d")
    truth = root / "stripes/ground_truth"
    report_masks("stripes", find_samples(root, "stripes", "test"))
    assert capsys.readouterr().out == ""
    empty = np.zeros((64, 80), bool)
    save(truth / "blot/000_mask.png", empty)
    save(truth / "gap/001_mask.png", ~empty)
    save(truth / "good/000_mask.png", empty)  # as some converters write them; nothing odd
    (truth / "blot/002_mask.png").rename(truth / "blot/2_mask.png")
    save(truth / "003_mask.png")
    shutil.copytree(truth / "gap", truth / ".ipynb_checkpoints")
    report_masks("stripes", find_samples(root, "stripes", "test"))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "note: stripes: 2 files in ground_truth belong to no test image, or to one that has a "
        f"mask: {truth}/003_mask.png, ...",
        "note: stripes: 1 anomalous images have no mask; the figures of pixels leave them out: "
        f"{root}/stripes/test/blot/002.png",
        "note: stripes: 1 masks of anomalous images are empty, without any defect pixel: "
        f"{truth}/blot/000_mask.png",
        "note: stripes: 1 masks call more than half of the image defect; background is black (0) "
        f"or transparent: {truth}/gap/001_mask.png"]
    shutil.rmtree(truth)
    report_masks("stripes", find_samples(root, "stripes", "test"))
    report_masks("x", [Sample(tmp_path / "a.png", "x", "", 1, None)])
    assert capsys.readouterr().out == ""
