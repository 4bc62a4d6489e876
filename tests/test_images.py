"""Decoding of every kind of image: modes, deep grey, transparency, rotation, size."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ad import InputError, images, layouts
from ad.images import read_image, reading, white_of
from ad.sets.deep_grey import report_range
from conftest import run, tiny_image, write_tiny

NOISE = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)


@pytest.mark.parametrize("mode, value, expected", [
    ("L", 100, (100, 100, 100)), ("RGB", (10, 20, 30), (10, 20, 30)),
    ("RGBA", (10, 20, 30, 255), (10, 20, 30)), ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
    ("RGBA", (10, 20, 30, 51), (206, 208, 210)), ("LA", (77, 0), (255, 255, 255)),
    ("LA", (77, 255), (77, 77, 77)), ("LA", (0, 102), (153, 153, 153)),
    ("I;16", 257 * 200, (200, 200, 200)), ("I;16", 65535, (255, 255, 255)),
    ("1", 1, (255, 255, 255))])
def test_every_mode_becomes_rgb(tmp_path, mode, value, expected):
    if mode == "I;16":
        image = Image.fromarray(np.full((19, 23), value, np.uint16))
    else:
        image = Image.new(mode, (23, 19), value)
    image.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png", 512)
    assert read.dtype == torch.uint8 and read.shape == (3, 19, 23)
    assert (read == torch.tensor(expected, dtype=torch.uint8).view(3, 1, 1)).all()


def test_what_looks_the_same_is_the_same(tmp_path):
    """Whatever colours hide under transparent pixels, in every mode that has them."""
    rgb, hole = NOISE[:40, :50], np.zeros((40, 50), bool)
    hole[5:20, 8:30] = True
    plain = np.where(hole[..., None], np.uint8(255), rgb)
    Image.fromarray(plain).save(tmp_path / "plain.png")
    alpha = np.where(hole, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "rgba.png")
    hidden = np.where(hole[..., None], 255 - rgb, rgb)
    Image.fromarray(np.dstack([hidden, alpha])).save(tmp_path / "hidden.webp", lossless=True,
                                                     exact=True)
    keyed = np.where(hole[..., None], np.uint8((1, 2, 3)), plain)
    Image.fromarray(keyed).save(tmp_path / "key.png", transparency=(1, 2, 3))
    expected = torch.from_numpy(plain).permute(2, 0, 1)
    for name in ("plain.png", "rgba.png", "hidden.webp", "key.png"):
        assert torch.equal(read_image(tmp_path / name, 512), expected), name
    levels = Image.fromarray(plain[..., 0] // 64 * 64)
    levels.convert("RGB").save(tmp_path / "levels.png")
    index = np.where(hole, 7, np.asarray(levels))
    palette = Image.fromarray(index.astype(np.uint8)).convert("P")
    for name in ("p.png", "p.gif"):
        palette.save(tmp_path / name, transparency=7)
        found = read_image(tmp_path / name, 512)
        assert (found[:, hole] == 255).all(), name
        assert torch.equal(found[:, ~hole], read_image(tmp_path / "levels.png", 512)[:, ~hole])


def test_deep_grey_is_scaled_by_one_range(tmp_path):
    ramp = np.arange(20 * 20, dtype=np.uint16).reshape(20, 20)
    for name, white, values, expected in (
            ("twelve.png", 4095, ramp * 10, ramp / 4095. * 2550),  # a 12-bit camera's, up to 3990
            ("unknown.png", None, ramp * 10, ramp / 65535. * 2550),
            ("eight.tif", 255, ramp.astype(np.int32), np.minimum(ramp, 255)),
            ("clipped.png", 4095, ramp * 160, np.minimum(ramp * 160, 4095) / 4095. * 255),
            ("sixteen.png", 65535, ramp * 160, ramp / 65535. * 160 * 255),
            ("integers.tif", 65535, (ramp * 160).astype(np.int32), ramp / 65535. * 160 * 255),
            ("floats.tif", 4095, (ramp / 399).astype(np.float32), ramp / 399 * 255)):
        Image.fromarray(values).save(tmp_path / name)
        read = read_image(tmp_path / name, 512, white)
        assert np.abs(read[0].numpy() - expected).max() <= 0.5, name
    for name, values in (("deep.tif", ramp.astype(np.int32) * 1000),
                         ("negative.tif", ramp.astype(np.int32) - 1),
                         ("float.tif", ramp.astype(np.float32)),
                         ("nan.tif", np.full((20, 20), np.nan, np.float32))):
        Image.fromarray(values).save(tmp_path / name)
        with pytest.raises(InputError, match=f"{name}: its values, .* are not in"):
            read_image(tmp_path / name, 512)


def test_the_range_is_that_of_the_training_images(tmp_path, capsys):
    def save(name, most, dtype=np.uint16):
        values = np.linspace(0, most, 400).reshape(20, 20).astype(dtype)
        Image.fromarray(values).save(tmp_path / name)
        return tmp_path / name
    dim, dark, bright = save("dim.png", 2000), save("dark.tif", 200, np.int32), save("b.png", 5000)
    byte = save("byte.png", 255, np.uint8)
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert white_of([byte, tmp_path / "broken.png"]) is None
    assert white_of([byte, dark]) == 255
    assert white_of([byte, dark, dim]) == 4095
    assert white_of([dark, bright, dim]) == 65535
    samples = [layouts.Sample(p, "c", "", -1, None) for p in (byte, dim, bright)]
    config = {"image_size": 512, "white": 4095}
    assert reading(config) == (512, 4095)
    assert reading({"image_size": 64}) == (64, None)  # of an older run
    report_range(samples, [dim, bright], config)
    assert capsys.readouterr().out == (
        "note: c: 1 of 3 images have values above 4095, the range of the training images, and are "
        f"white there, first {bright}\n")
    report_range(samples, [dim, bright], {"white": None})
    assert "2 of 3 images have more than 8 bits, unlike the" in capsys.readouterr().out
    report_range(samples, [dim, bright], {"white": 65535})
    assert capsys.readouterr().out == ""


def test_a_brighter_photo_is_brighter_in_every_script(tmp_path):
    """12-bit photos in 16-bit files; a test image leaves 12 bits."""
    rng, base = np.random.default_rng(0), tmp_path / "d/c"
    for number in range(13):
        grey = tiny_image(rng).mean(-1) / 255 * 4000
        path = base / ("train/good" if number < 12 else "test/good") / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.astype(np.uint16)).save(path)
    Image.fromarray((grey * 1.6).astype(np.uint16)).save(base / "test/good/brighter.png")
    where = ("--data", tmp_path / "d", "--category", "c")
    result = run("train.py", *where, "--model", "patchcore", "--layers", 8, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run("infer.py", *where, "--maps", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("1 of 2 images have values above 4095") == 1
    shown = {name: np.asarray(Image.open(tmp_path / f"results/maps/c/good/{name}.png").convert("L"))
             for name in ("012", "brighter")}
    # The picture is in the middle of the top: 1.6 times as bright, up to white.
    twelve, brighter = (shown[name][:64, 160:240] for name in ("012", "brighter"))
    assert np.median(np.abs(twelve - grey.astype(np.uint16) / 4095 * 255)) < 6
    assert brighter.mean() > 1.3 * twelve.mean()
    result = run("infer.py", "--category", "c", "--image", base / "test/good/brighter.png",
                 cwd=tmp_path)
    assert "1 of 1 images have values above 4095" in result.stdout, result.stderr


def test_large_images_shrink_and_small_ones_stay(tmp_path):
    Image.new("RGB", (300, 150), (7, 7, 7)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 100).shape == (3, 50, 100)
    assert read_image(tmp_path / "a.png", 300).shape == (3, 150, 300)
    assert read_image(tmp_path / "a.png", 900).shape == (3, 150, 300)


def test_photos_of_more_megapixels_than_pillow_likes_are_shrunk(tmp_path, recwarn):
    """Each cell of 128 x 128 pixels becomes 8 x 8; on threads, and without a warning in any."""
    cells = NOISE[..., 0] > 127
    huge = Image.fromarray(np.kron(cells, np.ones((128, 128), bool)))  # 11520 x 16640: 192 MP
    huge.save(tmp_path / "a.png")
    sample = layouts.Sample(tmp_path / "a.png", "c", "", -1, None)
    for read in images.load_images([sample] * 2, 130 * 8):
        middle = read[:, 4::8, 4::8].numpy() > 127
        assert (middle == cells).all()
    assert not recwarn.list


def test_large_files_are_read_alike_and_too_large_ones_refused(tmp_path, monkeypatch):
    y, x = np.mgrid[:600, :900] / 40
    soft = np.stack([127 + 120 * np.sin(x + c) * np.cos(y) for c in range(3)], -1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(soft).save(tmp_path / "a.jpg", quality=95, exif=exif)
    Image.fromarray(soft).save(tmp_path / "a.png")
    before = [read_image(tmp_path / name, 100).int() for name in ("a.jpg", "a.png")]
    assert before[0].shape == (3, 100, 67)
    monkeypatch.setattr(images, "LARGE", 1000)
    after = [read_image(tmp_path / name, 100).int() for name in ("a.jpg", "a.png")]
    assert torch.equal(before[1], after[1])
    assert before[0].shape == after[0].shape and (before[0] - after[0]).abs().max() <= 8
    monkeypatch.setattr(images, "MOST", 500_000)
    with pytest.raises(InputError, match="a.png: it has 1 megapixels, the most .* into tiles"):
        read_image(tmp_path / "a.png", 100)


def test_exif_rotation_is_applied(tmp_path):
    exif, grey = Image.Exif(), NOISE[:20, :40, 0]
    exif[0x0112] = 6  # rotate by 270 degrees to show
    for name in ("a.png", "a.tif", "lzw.tif", "deep.tif", "a.jpg"):
        image = Image.fromarray(grey.astype(np.uint16) * 257 if name == "deep.tif" else grey)
        image.save(tmp_path / name, exif=exif,
                   **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
        read = read_image(tmp_path / name, 512)
        assert read.shape == (3, 40, 20)
        assert name == "a.jpg" or (read.numpy() == np.rot90(grey, -1)).all(), name


def test_formats_and_frames(tmp_path):
    """Lossless formats give the very pixels, lossy ones nearly; of several frames the first."""
    soft = Image.fromarray(NOISE).resize((40, 30)).resize((130, 90), Image.Resampling.BICUBIC)
    expected = np.asarray(soft)
    second = [Image.new("RGB", soft.size)]
    for name, options, far in (
            ("a.ppm", {}, 0), ("a.jp2", {"irreversible": False}, 0), ("a.jfif", {}, 9),
            ("a.tif", {"save_all": True, "append_images": second}, 0),
            ("a.webp", {"save_all": True, "append_images": second, "lossless": True}, 0),
            ("apng.png", {"save_all": True, "append_images": second}, 0)):
        soft.save(tmp_path / name, **options)
        found = read_image(tmp_path / name, 512).permute(1, 2, 0).numpy()
        off = np.abs(found.astype(int) - expected)
        assert off.mean() <= far if far else off.max() == 0, name
    grey = soft.convert("L")
    for name in ("a.pgm", "a.gif"):
        grey.save(tmp_path / name, **({"save_all": True, "append_images": second}
                                      if name == "a.gif" else {}))
        assert (read_image(tmp_path / name, 512).numpy() == np.asarray(grey)).all(), name
    soft.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    found = read_image(tmp_path / "cmyk.jpg", 512).permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("model, options", [
    ("patchcore", ()), ("unet", ("--width", 4, "--depth", 4, "--epochs", 1, "--val-every", 1)),
    ("vae", ("--epochs", 1, "--val-every", 1, "--latent-dim", 4, "--image-height", 32,
             "--image-width", 32))])
def test_strips_are_scored(tmp_path, model, options):
    """Sides of 21 : 1 and 31 : 1, with every model."""
    root = write_tiny(tmp_path / "d", train=5)
    shutil.rmtree(root / "stripes/ground_truth")
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        Image.open(path).resize((512, 24) if number % 2 else (2000, 64)).save(path)
    where = ("--data", root, "--category", "stripes")
    result = run("train.py", *where, "--model", model, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run("infer.py", *where, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "results/scores.csv").read_text().count("\n") == 13
