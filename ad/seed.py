"""Seeding, random states, and the record of the environment."""

import os
import platform
import random
import subprocess
from pathlib import Path

import numpy as np
import torch

from ad import InputError


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices); 0 <= seed < 2 ** 32."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_states(generator: torch.Generator) -> list[torch.Tensor]:
    """All that a step draws from: the generator, and torch's own on all devices."""
    return [generator.get_state(), torch.get_rng_state(),
            *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]


def set_random_states(states: list[torch.Tensor], generator: torch.Generator) -> None:
    try:
        generator.set_state(states[0])
        torch.set_rng_state(states[1])
        torch.cuda.set_rng_state_all(states[2:])
    except RuntimeError as error:
        raise InputError("this run was stopped in the midst of an epoch on another device; resume "
                         "it there") from error


def git_commit() -> str | None:
    """Commit of the project's checkout, or None outside one."""
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent,
                                capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def environment(device: torch.device) -> dict:
    """What a result depends on besides the arguments, as a dict of plain types."""
    cuda = device.type == "cuda"
    return {"python": platform.python_version(), "torch": str(torch.__version__),
            "numpy": np.__version__, "platform": platform.platform(),
            "cuda": torch.version.cuda if cuda else None,
            "cudnn": torch.backends.cudnn.version() if cuda else None,
            "device": torch.cuda.get_device_name(device) if cuda else
            torch.cpu.get_capabilities().get("cpu_name", platform.machine()),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "threads": torch.get_num_threads(), "git_commit": git_commit()}
