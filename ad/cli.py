"""What the three scripts share: one-line errors, signals, device and precision."""

import argparse
import contextlib
import os
import shlex
import signal
import sys
from pathlib import Path

import torch

from ad import InputError, distributed

SCRIPTS = "train.py", "infer.py", "visualize.py"
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


def command(script, data, runs, *options):
    """A line for a shell: a script of this project with these options and, where they were given,
    --data and --runs."""
    folder = Path(sys.argv[0]).parent if Path(sys.argv[0]).name in SCRIPTS else Path()
    given = ("--data", data or ""), ("--runs", "" if str(runs) == "runs" else runs)
    return shlex.join(["python", str(folder / script), *map(str, options), *(
        str(word) for pair in given if str(pair[1]) for word in pair)])


SIGNALS = signal.SIGINT, signal.SIGTERM


class Interrupted(BaseException):
    """SIGINT or SIGTERM; args[0] is the signal's number."""


def interrupt(number, frame):
    raise Interrupted(number)


@contextlib.contextmanager
def deferred():
    """SIGINT and SIGTERM only enter the list that this yields, until the block ends; then the first
    is raised as Interrupted. A third one (torchrun sends a second of its own) is raised at once."""
    caught = []

    def note(number, frame):
        caught.append(number)
        if len(caught) == 3:
            raise Interrupted(number)
        # Not print, in whose midst the signal may have come.
        os.write(2, b"stopping as soon as what was learned is saved; twice more stops at once\n")
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        raise Interrupted(caught[0])


def run_script(main):
    """Run a script's main(); an InputError becomes a line on stderr (several, if several files are
    bad) and exit code 2, SIGINT and SIGTERM one line and 130 and 143. Files are only ever replaced
    as a whole, so that what was finished before is on disk."""
    for number in SIGNALS:
        signal.signal(number, interrupt)
    try:
        distributed.setup()
        main()
        distributed.leave()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, say
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, torch.distributed.DistError):
            raise
        print("error: lost the connection to another process, which has stopped; what was finished "
              "is kept, and train.py --resume goes on from the last whole epoch", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(f"stopped by {signal.Signals(stop.args[0]).name}; what was finished is kept, and "
              "train.py --resume goes on from there", file=sys.stderr)
        sys.exit(128 + stop.args[0])


def select_device(name, deterministic=False):
    """"auto" | "cpu" | "cuda" -> torch.device; auto takes CUDA when there is one. deterministic:
    algorithms that are not repeatable raise an error instead of running."""
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
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
    return contextlib.nullcontext() if precision == "fp32" else torch.autocast(
        device.type, dtype=PRECISIONS[precision])
