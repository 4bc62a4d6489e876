"""Nothing lost: bad files, signals, a full disk, and runs that repeat."""

import copy
import errno
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

import infer
import train
from ad import InputError, checkpoint, samples, training
from ad.cli import Interrupted, deferred, explained
from ad.config import DEFAULT_RULE, Training
from ad.detector import load_member
from ad.images import load_images, load_readable, read_image
from ad.machine import Machine
from ad.runs import Run, open_folder
from conftest import (PROJECT, REPEATABLE, TINY_TRAINING, run, tiny_image, wait_for,
                      write_tiny)


def picture(seed=0, size=(60, 48)):
    return Image.fromarray(tiny_image(np.random.default_rng(seed), size[1], size[0]))


def readable(folder):
    """Odd but sound files: {path: expected (height, width)}."""
    found = {}

    def save(name, image, size=None, **options):
        image.save(folder / name, **options)
        found[folder / name] = size or image.size[::-1]
    base = picture()
    for number, mode in enumerate(("L", "P", "RGBA", "LA", "1", "CMYK", "I;16", "I", "F")):
        suffix = {"CMYK": "jpg", "F": "tiff", "I": "tiff"}.get(mode, "png")
        grey = np.asarray(base.convert("L"))
        image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else \
            Image.fromarray(grey / np.float32(255)) if mode == "F" else base.convert(mode)
        save(f"mode{number}.{suffix}", image)
    for name in ("with space.png", "näme.png", "名前.png", "a'b\".png", "UPPER.PNG", "100%.png"):
        save(name, base)
    save(os.fsdecode(b"latin-\xe9.png"), base)
    for suffix in ("bmp", "tif", "webp", "jpeg"):
        save(f"kind.{suffix}", base)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        size = base.size if orientation >= 5 else base.size[::-1]
        save(f"turned{orientation}.jpg", base, size, exif=exif)
    base.save(folder / "moving.webp", save_all=True, append_images=[picture(1)])
    found[folder / "moving.webp"] = (48, 60)
    base.save(folder / "jpeg in truth.jpg")
    (folder / "jpeg in truth.jpg").rename(folder / "no.png")  # the content decides
    found[folder / "no.png"] = (48, 60)
    for side in (16, 17, 33, 300):
        save(f"square{side}.png", picture(2, (side, side)))
    return found


def broken(folder, count=160):
    """Files that are no image: cut at every kind of place, empty, noise, tiny, looping, huge."""
    rng, found = random.Random(0), []
    for kind in ("png", "jpg", "bmp", "tif", "webp"):
        picture(3).save(folder / f"whole.{kind}")
        whole = (folder / f"whole.{kind}").read_bytes()
        (folder / f"whole.{kind}").unlink()
        for number in range(count // 5):
            # A JPEG or BMP that lacks only its last bytes may still be decoded.
            stop = rng.randrange(0, int(0.8 * len(whole)))
            found.append(folder / f"cut{number}.{kind}")
            found[-1].write_bytes(whole[:stop])
    for number in range(20):
        found.append(folder / f"noise{number}.png")
        found[-1].write_bytes(rng.randbytes(number * 37))
    for name, size in (("dot.png", (1, 1)), ("line.png", (1, 4096)), ("row.png", (4096, 1)),
                       ("flat.jpg", (15, 40))):
        found.append(folder / name)
        Image.new("RGB", size).save(found[-1])
    found.append(folder / "bomb.png")
    Image.new("1", (30_000, 30_000)).save(found[-1])
    found.append(folder / "loop.png")
    found[-1].symlink_to(found[-1])
    found.append(folder / "nowhere.png")
    found[-1].symlink_to(folder / "missing")
    found.append(folder / "folder.png")
    found[-1].mkdir()
    found.append(folder / "text.png")
    found[-1].write_text("<html>not found</html>")
    return found


def sample(path):
    return samples.Sample(path, "c", "good", 0, None)


def test_two_hundred_files_are_each_read_or_named(tmp_path):
    good, bad = readable(tmp_path), broken(tmp_path)
    assert len(good) + len(bad) >= 200
    for path, size in good.items():
        assert tuple(read_image(path, 512).shape) == (3, *size), path
    every = [sample(path) for path in [*good, *bad]]
    with pytest.raises(InputError) as caught:
        load_images(every, 512)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(bad)
    for path, line in zip(bad, lines):
        assert line.startswith(f"cannot read image {path}: ")
    kept, images = load_readable(every, 512)
    assert [s.path for s in kept] == list(good) and len(images) == len(good)


def test_a_file_without_permission_is_named(tmp_path, monkeypatch):
    def refuse(path):  # root, as whom tests may run, may read every file
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match="cannot read image .*a.png.*Permission denied"):
        read_image(tmp_path / "a.png", 512)


def test_bad_images_are_all_named_or_skipped_in_training_never_in_inference(tmp_path):
    root = write_tiny(tmp_path / "data")
    for number in (3, 7):
        (root / f"stripes/train/good/{number:03}.png").write_bytes(b"broken")
    where = ("--data", root, "--category", "stripes", "--model", "patchcore", "--layers", 8)
    result = run("train.py", *where, cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("cannot read image") == 2
    assert "003.png" in result.stderr and "007.png" in result.stderr
    assert not (tmp_path / "runs/stripes").exists()
    result = run("train.py", *where, "--skip-bad-images", cwd=tmp_path)
    assert result.returncode == 0 and "left out 2 of 12 images" in result.stdout, result.stderr
    config = json.loads((tmp_path / "runs/stripes/patchcore-seed0/config.json").read_text())
    assert sorted(config["validation"]) == config["train"] and len(config["train"]) == 10
    (root / "stripes/test/blot/001.png").write_bytes(b"")
    result = run("infer.py", *where[:4], cwd=tmp_path)
    assert result.returncode == 2 and "blot/001.png" in result.stderr
    assert not (tmp_path / "results/scores.csv").exists()


def test_no_image_that_can_be_read_is_one_line(tmp_path):
    (tmp_path / "good").mkdir()
    for number in range(5):
        (tmp_path / f"good/{number}.png").write_text("version https://git-lfs.github.com/spec/v1")
    result = run("train.py", "--data", "good", "--skip-bad-images", "--model", "patchcore",
                 cwd=tmp_path)
    assert result.returncode == 2 and "left out 5 of 5" in result.stdout
    assert result.stderr.count("\n") == 1 and "no normal image that can be read" in result.stderr


def test_a_bad_category_costs_infer_no_other(tmp_path):
    root = write_tiny(tmp_path / "data")
    write_tiny(root, "dots", seed=1)
    assert run("train.py", "--data", root, "--all", "--model", "patchcore", "--layers", 8,
               cwd=tmp_path).returncode == 0
    (root / "stripes/test/gap/002.png").write_bytes(b"broken")
    result = run("infer.py", "--data", root, "--all", cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.startswith("error: stripes: cannot read image")
    assert set(json.loads((tmp_path / "results/metrics.json").read_text())["categories"]) == {
        "dots"}
    rows = (tmp_path / "results/scores.csv").read_text().splitlines()[1:]
    assert len(rows) == 12 and all(",dots," in row for row in rows)


def test_results_that_cannot_be_written_are_refused_before_scoring(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["infer.py", "--all", "--results", "file/below"])
    with pytest.raises(InputError, match="file is a file, not a folder"):
        infer.parse_args()
    monkeypatch.setattr(sys, "argv", ["infer.py", "--all", "--results", "new/below"])
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root
    with pytest.raises(InputError, match=f"{tmp_path} cannot be written to"):
        infer.parse_args()


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")])
def test_too_little_memory_is_one_line(error):
    assert explained(error).startswith("there is not enough memory; less is needed with a smaller")


def test_a_fault_of_the_program_is_raised_again():
    with pytest.raises(RuntimeError, match="shapes"):
        explained(RuntimeError("shapes do not match"))


def test_resuming_deletes_no_checkpoint(tmp_path):
    folder = tmp_path / "unet-seed0"
    folder.mkdir()
    for name in ("best.pt", "epoch_4.pt", "log.jsonl"):
        (folder / name).write_text(name)
    with pytest.raises(InputError, match="no last.pt to go on from; --overwrite deletes"):
        open_folder(folder, {}, overwrite=False, fitted=False)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name: name for name in ("best.pt", "epoch_4.pt", "log.jsonl")}
    assert open_folder(folder, {}, overwrite=False, fitted=True) == (None, {})  # learns anew
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_runs_of_different_folders_do_not_vote_unasked(tmp_path):
    rng = np.random.default_rng(0)
    for product in ("caps", "screws"):
        (tmp_path / product / "good").mkdir(parents=True)
        for number in range(6):
            Image.fromarray(tiny_image(rng)).save(tmp_path / product / f"good/{number}.png")
        assert run("train.py", "--data", f"{product}/good", "--model", "patchcore", "--layers", 8,
                   "--name", product, cwd=tmp_path).returncode == 0
    where = ("infer.py", "--image", "caps/good", "--category", "good")
    result = run(*where, cwd=tmp_path)
    assert result.returncode == 2 and not (tmp_path / "results").exists()
    for product in ("caps", "screws"):
        assert f"{product} from {tmp_path}/{product}/good" in result.stderr
    for members in (["caps"], ["caps", "screws"]):  # whoever asks for it gets it
        result = run(*where, "--members", *members, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    (tmp_path / "caps").rename(tmp_path / "moved")  # may be what screws has learned from
    assert run(*where[:2], "moved/good", *where[3:], cwd=tmp_path).returncode == 0


def start(*arguments, cwd, limit=None):
    """train.py in its own process; limit: largest file in bytes that it may write."""
    command = [sys.executable, str(PROJECT / "train.py"), *map(str, arguments)]
    cap = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    # Coverage writes a file of its own, which a limit would refuse, too.
    env = {k: v for k, v in os.environ.items() if not (limit and k.startswith("COVERAGE"))}
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**env, "OMP_NUM_THREADS": "1"}, preexec_fn=cap)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """An uninterrupted run of 6 epochs: (its options, its weights, its folder)."""
    folder = tmp_path_factory.mktemp("whole")
    options = ("--data", tiny, "--category", "stripes", *TINY_TRAINING, *REPEATABLE)
    result = run("train.py", *options, "--epochs", 6, cwd=folder)
    assert result.returncode == 0, result.stderr
    return options, checkpoint.load(folder / "runs/stripes/unet-seed0/last.pt")["model"], folder


def same(weights, path):
    other = checkpoint.load(path)["model"]
    return all(torch.equal(weights[key], other[key]) for key in weights)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143),
                                          (signal.SIGKILL, -9)])
def test_a_stopped_run_resumes_to_the_same_weights(whole, tmp_path, number, code):
    options, weights, _ = whole
    last = tmp_path / "runs/stripes/unet-seed0/last.pt"
    process = start(*options, "--epochs", 6, cwd=tmp_path)
    wait_for(last, process)
    time.sleep(random.Random(int(number)).uniform(0, 0.3))
    process.send_signal(number)
    _, errors = process.communicate()
    if process.returncode != 0:  # it may have been done already
        assert process.returncode == code and "Traceback" not in errors, errors
        assert number == signal.SIGKILL or f"stopped by {signal.Signals(number).name}" in errors
    checkpoint.load(last)
    result = run("train.py", *options, "--epochs", 6, "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert same(weights, last)


@pytest.mark.parametrize("step", [1, 4, 6])  # of 3 an epoch: the first, one in the middle, a last
def test_a_signal_saves_the_step(whole, tmp_path, monkeypatch, capsys, step):
    """What was learned in the midst of an epoch is in last.pt, and the rest of it is the same."""
    options, weights, _ = whole
    arguments = [*map(str, options), "--epochs", "6"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    step_losses, steps = training.step_losses, []

    def signalled(*parts):
        steps.append(parts)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return step_losses(*parts)
    monkeypatch.setattr(training, "step_losses", signalled)
    with pytest.raises(Interrupted):
        train.main(train.parse_args())
    assert len(steps) == step
    folder = tmp_path / "runs/stripes/unet-seed0"
    last = checkpoint.load(folder / "last.pt")
    epoch, done = divmod(step - 1, 3)
    assert (last["epoch"], last["begun"]["batches"]) == (epoch, done + 1)
    assert f"saved after step {done + 1} of epoch {epoch + 1}" in capsys.readouterr().out
    result = run("train.py", *arguments, "--resume", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert same(weights, folder / "last.pt")
    expected, found = ([json.loads(line) for line in (base / "log.jsonl").read_text().splitlines()]
                       for base in (whole[2] / "runs/stripes/unet-seed0", folder))
    assert [r["loss"] for r in found] == [r["loss"] for r in expected]


def test_signals_wait_for_the_end_of_a_block_but_for_the_third():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for count in (1, 2, 3):
        done = []
        with pytest.raises(Interrupted) as error, deferred():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT)[:count]:
                os.kill(os.getpid(), number)
            done.append(count)
        assert done == ([count] if count < 3 else [])
        assert error.value.args == ((signal.SIGTERM,) if count < 3 else (signal.SIGINT,))
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with deferred() as caught:
        pass
    assert caught == []


class Draws(torch.nn.Module):
    """Its losses are draws of the generator and of torch's own."""

    def __init__(self, stop, last):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.stop, self.last, self.seen = stop, last, []

    def loss(self, images, generator):
        draw = torch.rand(1, generator=generator) + torch.rand(1)
        self.seen.append((draw.item(), images[:, 0, 0, 0].tolist()))
        if len(self.seen) == self.last:
            self.stop.append(signal.SIGINT)
        return {"loss": (draw * (self.weight + 1)).mean()}


@pytest.mark.parametrize("last", [1, 2, 3])
def test_an_epoch_in_two_parts_draws_as_one_in_one(last):
    plan = Training(seed=3, batch=2, lr=0.1, epochs=2, augment=False, long_side=(16, 32),
                    weight_decay=0)
    machine = Machine(torch.device("cpu"))
    images = [torch.full((3, 16, 16), 40 * i, dtype=torch.uint8) for i in range(6)]
    whole = Draws([], None)
    expected = training.train_epoch(whole, (images, None),
                                    training.make_updates(whole, plan, machine), 1)
    parts, begun = Draws([], last), {}
    updates = training.make_updates(parts, plan, machine)
    # `stop` is looked at with the losses, so that it ends the step in which it got an item.
    assert training.train_epoch(parts, (images, None), updates, 1, begun, parts.stop) is None
    assert len(parts.seen) == begun["batches"] == last
    torch.manual_seed(99)
    found = training.train_epoch(parts, (images, None), updates, 1, begun)
    assert parts.seen == whole.seen and torch.equal(parts.weight, whole.weight)
    assert found["loss"] == expected["loss"] and len(set(parts.seen[0][1])) == 2
    begun["random"] = begun["random"][:1] * 2  # of another kind of device
    begun["random"][0] = begun["random"][0][:16]
    with pytest.raises(InputError, match="on another device"):
        training.train_epoch(parts, (images, None), updates, 1, begun)


def test_the_bar_is_not_printed_anew_after_every_epoch(tmp_path, monkeypatch):
    """In a log file it would be a line each: at most one in half a minute is wanted."""
    bar = io.StringIO()
    monkeypatch.setattr(training, "progress", lambda total, what, show: tqdm(
        total=total, file=bar, mininterval=30))
    plan, machine = Training(batch=2, epochs=20, augment=False), Machine(torch.device("cpu"))
    images = [torch.full((3, 16, 16), 40 * i, dtype=torch.uint8) for i in range(4)]
    state = {"epoch": 0, "best": None, "stale": 0, "model_args": {},
             "config": {"args": {"schedule": "constant", "save_every": 4}}}
    training.run_epochs(Draws([], None), (images, None), lambda: {"auroc": 0.5, "val_loss": 1.0},
                        Run(tmp_path, state), plan, machine)
    assert state["epoch"] == 20 and bar.getvalue().count("\r") <= 3
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 20


def nested(mapping, prefix=()):
    """Paths of all keys of nested dicts but those of weights."""
    for key, value in mapping.items():
        yield (*prefix, key)
        if isinstance(value, dict) and key not in ("model", "mean", "std"):
            yield from nested(value, (*prefix, key))


def test_checkpoints_of_other_versions_work_or_are_named(whole, tmp_path):
    """Lacking any of the values in it, or with one more, it loads, or is refused in one line."""
    saved = checkpoint.load(whole[2] / "runs/stripes/unet-seed0/best.pt")
    machine, refused = Machine(torch.device("cpu")), 0
    for *parents, key in nested(saved):
        for drop in (True, False):
            changed = copy.deepcopy(saved)
            part = changed
            for name in parents:
                part = part[name]
            if drop:
                del part[key]
            else:
                part[f"new_{key}"] = 1
            torch.save(changed, tmp_path / "odd.pt")
            try:
                load_member(tmp_path / "odd.pt", machine, DEFAULT_RULE, {})
            except InputError as error:
                assert "odd.pt" in str(error) and "\n" not in str(error)
                refused += 1
    assert refused >= 20


@pytest.mark.parametrize("model", ["unet", "patchcore", "small_conv_vae"])
@pytest.mark.parametrize("value", [0, 128])
def test_constant_images_give_no_nan(tmp_path, model, value):
    """Zero variance everywhere: nothing to learn, nothing to divide by."""
    for name, odd in (("train/good", 0), ("test/good", 0), ("test/spot", 1)):
        folder = tmp_path / "data/flat" / name
        folder.mkdir(parents=True)
        for number in range(6 if name == "train/good" else 2):
            image = np.full((48, 48, 3), value, np.uint8)
            image[0, 0, 0] += number  # no copies, which would be left out
            image[10:20, 10:20] += odd * np.uint8(100)
            Image.fromarray(image).save(folder / f"{number}.png")
    where = ("--data", tmp_path / "data", "--category", "flat")
    size = ("--width", 4, "--depth", 2, "--long-side", 48, 48) if model == "unet" else ()
    result = run("train.py", *where, "--model", model, *size,
                 *(("--epochs", 2, "--batch", 2) if model != "patchcore" else ()), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run("infer.py", *where, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [row.split(",") for row in (tmp_path / "results/scores.csv").read_text().splitlines()]
    scores = {row[0]: float(row[4]) for row in rows[1:]}
    assert len(scores) == 4 and np.isfinite(list(scores.values())).all()
    if model != "small_conv_vae":  # its two epochs have taught it nothing
        assert min(scores["spot/0"], scores["spot/1"]) > max(scores["good/0"], scores["good/1"])


def test_a_run_that_explodes_ends_in_one_line_and_keeps_the_epochs_before(whole, tmp_path):
    options, _, folder = whole
    options = list(options)
    options[options.index("--lr") + 1] = 1e30
    result = run("train.py", *options, "--epochs", 6, cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "not finite in epoch 1; train anew with a lower --lr" in result.stderr
    assert not list((tmp_path / "runs").glob("**/*.pt"))


def test_leaked_and_maskless_images_are_reported(whole, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "data")
    base = tmp_path / "data/stripes"
    shutil.copy(base / "train/good/005.png", base / "test/good/copied.png")
    (base / "ground_truth/blot/002_mask.png").unlink()
    options = ("--data", tmp_path / "data", "--category", "stripes", "--model", "patchcore",
               "--layers", 8)
    assert run("train.py", *options, cwd=tmp_path).returncode == 0
    result = run("infer.py", *options[:4], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "LEAKAGE: 1 of 13 test images are copies of training images" in result.stdout
    assert "test/good/copied.png = " in result.stdout and "005.png" in result.stdout
    assert "1 anomalous images have no mask" in result.stdout
    shutil.copy(base / "train/good/005.png", base / "train/good/again.png")
    Image.new("L", (80, 80)).save(base / "ground_truth/blot/001_mask.png")
    result = run("infer.py", *options[:4], cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "blot/001_mask.png: it is 80 x 80 pixels, but its image 64 x 80" in result.stderr
    result = run("train.py", *options, "--seed", 1, cwd=tmp_path)
    assert "left out 1 of 13 normal images, copies of others: " in result.stdout
    assert f"{base}/train/good/again.png = {base}/train/good/005.png" in result.stdout
    config = json.loads((tmp_path / "runs/stripes/patchcore-seed1/config.json").read_text())
    assert len(config["train"]) == len(config["validation"]) == 12


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(whole, tmp_path):
    options, _, folder = whole
    last = tmp_path / "runs/stripes/unet-seed0/last.pt"
    result = run("train.py", *options, "--epochs", 2, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    before = last.read_bytes()
    # Python ignores SIGXFSZ, so that the write fails with an error, as on a full disk.
    process = start(*options, "--epochs", 4, "--resume", cwd=tmp_path, limit=len(before) // 2)
    _, errors = process.communicate()
    assert process.returncode == 2 and errors.count("\n") == 1, errors
    assert "cannot write runs/stripes/unet-seed0/" in errors and "too large" in errors.lower()
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*tmp"))


def test_a_full_disk_leaves_no_half_of_the_demo_set(tmp_path):
    process = start("--data", "demo", "--category", "carpet", cwd=tmp_path, limit=5000)
    _, errors = process.communicate()
    assert process.returncode == 2 and errors.count("\n") == 1, errors
    assert errors == "error: cannot write data/demo: File too large\n"
    assert list((tmp_path / "data").iterdir()) == []


def test_config_json_alone_repeats_a_run(whole, tmp_path):
    _, weights, folder = whole
    result = run("train.py", "--config", folder / "runs/stripes/unet-seed0/config.json",
                 "--deterministic", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert same(weights, tmp_path / "runs/stripes/unet-seed0/last.pt")
    config = json.loads((folder / "runs/stripes/unet-seed0/config.json").read_text())
    config["args"] |= {"all": True, "seeds": [0, 1]}  # as train.py --all --seeds 0 1 leaves it
    (tmp_path / "all.json").write_text(json.dumps(config))
    result = run("train.py", "--config", "all.json", "--name", "again", "--epochs", 1, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "runs/stripes").iterdir())) == 2
    (tmp_path / "bad.json").write_text("{}")
    result = run("train.py", "--config", "bad.json", cwd=tmp_path)
    assert result.returncode == 2 and "cannot take arguments from bad.json" in result.stderr


def test_scores_do_not_depend_on_threads_or_batches(whole, tiny, tmp_path):
    _, _, folder = whole
    scores = []
    for threads, batch in ((1, 1), (2, 7)):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        result = subprocess.run(
            [sys.executable, str(PROJECT / "infer.py"), "--data", str(tiny), "--category",
             "stripes", "--runs", str(folder / "runs"), "--window-batch", str(batch)],
            cwd=tmp_path, env=env, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        rows = (tmp_path / "results/scores.csv").read_text().splitlines()[1:]
        scores.append([float(row.split(",")[4]) for row in rows])
    assert scores[0] == pytest.approx(scores[1], abs=1e-5, rel=1e-5)
