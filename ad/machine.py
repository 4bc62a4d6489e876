"""Where to compute: device and precision, decided once."""

import contextlib
import os
from dataclasses import dataclass

import torch

from ad import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Machine:
    """device. precision: of the convolutions of a training step, a key of DTYPES; images are always
    judged in fp32, so that another machine judges them alike. window_batch: 256 x 256 windows per
    forward pass."""
    device: torch.device
    precision: str = "fp32"
    window_batch: int = 16

    def autocast(self) -> contextlib.AbstractContextManager:
        """Context of a training step, see precision; nothing at all for fp32."""
        return contextlib.nullcontext() if self.precision == "fp32" else torch.autocast(
            self.device.type, dtype=DTYPES[self.precision])


def choose_machine(device: str = "auto", precision: str = "auto", window_batch: int = 16,
                   deterministic: bool = False) -> Machine:
    """Names of a device ("auto", "cpu", "cuda") and a precision ("auto" or a key of DTYPES) ->
    Machine. deterministic: algorithms that are not repeatable raise an error instead of running.
    Raises InputError for what this machine does not have."""
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no usable CUDA GPU; use --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    precision = choose_precision(precision, device)
    # cuDNN's default for float32 is TF32, whose scores depend on the batch in the fourth digit.
    torch.backends.cudnn.allow_tf32 = False
    return Machine(device, precision, window_batch)


def choose_precision(name: str, device: torch.device) -> str:
    """"auto" or a key of DTYPES -> a key of DTYPES for this device. auto takes bf16 where the
    hardware multiplies it (fp16 on older CUDA GPUs), otherwise fp32."""
    if device.type == "cpu":
        if name == "fp16":
            raise InputError("--precision fp16 needs a CUDA GPU; use bf16 or fp32 on a CPU")
        capabilities = torch.cpu.get_capabilities()
        fast = any(capabilities.get(key) for key in ("avx512_bf16", "amx_bf16", "bf16"))
        return ("bf16" if fast else "fp32") if name == "auto" else name
    if name == "auto":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return name
