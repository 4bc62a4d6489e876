"""What the three scripts share: arguments, one-line errors, device and precision, members."""

import argparse
import contextlib
import sys
from pathlib import Path

import numpy as np
import torch

from ad import InputError, checkpoint
from ad.data import read_image
from ad.errors import ERRORS
from ad.scoring import CALIBRATIONS, Calibration, Scoring, calibrate, load_calibration

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Parser(argparse.ArgumentParser):
    """ArgumentParser that shows defaults and says what is wrong in one line, exit code 2."""

    def __init__(self, doc):
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        self.exit(2, f"error: {message} (see --help)\n")


def require(condition, text):
    """Raise InputError(text) unless the condition holds."""
    if not condition:
        raise InputError(text)


def run_script(main):
    """Run a script's main(); an InputError becomes one line on stderr and exit code 2."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def add_data_arguments(parser):
    """--data, --runs, --device, --precision, --window-batch; returns the data group."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", help="folder in MVTec AD layout, or demo: a procedural set written"
                       " on first use (default: $AD_DATA, else data/mvtec_ad)")
    group.add_argument("--runs", default="runs", help="folder of the trained runs (default: runs)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                         help="where to compute (default: auto, CUDA when there is one)")
    machine.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS),
                         help="of the convolutions (default: auto, bf16 or fp16 where fast)")
    machine.add_argument("--window-batch", type=int, default=16, metavar="N",
                         help="256 x 256 windows per forward pass; less needs less memory, the "
                         "scores stay (default: 16)")
    return group


def add_scoring_arguments(parser, default):
    """One option per field of Scoring; `default` is a Scoring, or None: leave unset."""
    group = parser.add_argument_group("scoring")
    shown = default or Scoring()

    def add(name, text, **options):
        value = getattr(shown, name)
        value = " ".join(map(str, value)) if name == "windows" else value
        group.add_argument(f"--{name.replace('_', '-')}", default=default and getattr(shown, name),
                           help=f"{text} (default{'' if default else ' as trained, normally'}: "
                           f"{value})", **options)
    add("windows", "sliding-window sides in pixels, stride half of it, 0 = the whole image",
        type=int, nargs="+", metavar="PX")
    add("window_input", "long side to which windows are resized before the model, 0 = not at all",
        type=int, metavar="PX")
    add("error", "which error maps to use", choices=ERRORS)
    add("colour_weight", "weight of the Lab ab-difference that is added", type=float, metavar="W")
    add("calibration", "what a map is compared with: one mean and std, those of its position, its "
        "own, or (auto) one or position, whichever makes held-out normal images likelier",
        choices=CALIBRATIONS)
    add("sigma", "Gaussian smoothing of the final map", type=float, metavar="PX")
    add("topk", "the score is the mean of this share of the pixels, the highest, in (0, 1]",
        type=float, metavar="SHARE")


def scoring_from(args, trained=None):
    """Parsed arguments (unset ones from `trained`, a dict of Scoring's fields) -> Scoring."""
    fields = dict(trained or {})
    for name in Scoring.__dataclass_fields__:
        if getattr(args, name, None) is not None:
            fields[name] = getattr(args, name)
    fields["windows"] = tuple(fields["windows"])
    return Scoring(**fields).check()


def select_device(name):
    """"auto" | "cpu" | "cuda" -> torch.device; auto takes CUDA when there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no usable CUDA GPU; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def select_precision(name, device):
    """"auto" | "fp32" | "bf16" | "fp16" -> "fp32" | "bf16" | "fp16" for this device.

    auto takes bf16 where the hardware multiplies it (fp16 on older CUDA GPUs), otherwise fp32.
    """
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        fast = any(capabilities.get(key) for key in ("avx512_bf16", "amx_bf16", "bf16"))
        if name == "fp16":
            raise InputError("--precision fp16 needs a CUDA GPU; use bf16 or fp32 on a CPU")
        return ("bf16" if fast else "fp32") if name == "auto" else name
    if name == "auto":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return name


def autocast(device, precision):
    """Context in which convolutions run in `precision`; nothing at all for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def load_member(path, args, device):
    """A checkpoint with its model, calibrated for the scoring that `args` ask for.

    The stored calibration serves where the scoring is the trained one; otherwise the validation
    images that config.json names are scored again.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint {path}")
    saved = checkpoint.load(path)
    model = checkpoint.restore_model(saved, path, device)
    config, calibration = saved["config"], saved["calibration"]
    trained = calibration["scoring"] if calibration else {
        name: config["args"][name] for name in Scoring.__dataclass_fields__}
    scoring = scoring_from(args, trained)
    wanted = vars(scoring) | {"fields": sorted(Calibration.__dataclass_fields__)}
    if calibration is None or wanted != calibration["scoring"] | {
            "fields": sorted(calibration.keys() - {"scoring", "scores"})}:
        print(f"{path}: calibrating on its {len(config['validation'])} validation images, since "
              f"it has {'none of this scoring' if calibration else 'no calibration'}")
        images = [read_image(Path(config["root"]) / name, config["image_size"])
                  for name in config["validation"]]
        with autocast(device, args.precision):
            calibration = calibrate(model, images, scoring, device, args.window_batch)
        print(f"{path}: calibration {load_calibration(calibration).describe()}")
    return {"name": path.parent.name, "model": model, "config": config, "calibration": calibration,
            "normal": np.asarray(calibration["scores"])}
