"""This process, one of several where torchrun started them: see ad.processes.distributed, which is
only imported then. A process alone has everything, and waits for nobody."""

import os
from collections.abc import Callable

import ad


def several() -> bool:
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def size() -> int:
    """How many processes share the job."""
    return ad.processes.distributed.size() if several() else 1


def rank() -> int:
    """The number of this one; 0 prints."""
    return ad.processes.distributed.rank() if several() else 0


def shard(items: object) -> object:
    """This process's part of a sequence, or of a tensor's first axis."""
    return ad.processes.distributed.shard(items) if several() else items


def total(values: object) -> object:
    """Sum of a tensor over all processes, differentiable."""
    return ad.processes.distributed.total(values) if several() else values


def from_rank_0(function: Callable) -> object:
    """What function() returns in process 0, in every process; they end where it raises an error."""
    return ad.processes.distributed.from_rank_0(function) if several() else function()


def gather(items: list) -> list:
    """The lists of all processes, one after the other."""
    return ad.processes.distributed.gather(items) if several() else items


def sum_gradients(model: object) -> None:
    """Add up the gradients of all processes."""
    if several():
        ad.processes.distributed.sum_gradients(model)


def synchronise(model: object) -> None:
    """Let batch normalisation see the images of all processes."""
    if several():
        ad.processes.batchnorm.synchronise(model)


def begin() -> None:
    """Join the others."""
    if several():
        ad.processes.distributed.setup()


def leave() -> None:
    """From now on every process is alone, and prints."""
    if several():
        ad.processes.distributed.leave()
