"""Several processes, started by torchrun: one job on many GPUs, of one machine or of several.

The objective is the sum over ranks of share * loss, share being the rank's part of the batch. Sums
that the loss of the whole batch needs go through `total`, which is differentiable, so that the
gradients of all ranks, added up, are those of one process.
"""

import os
import sys
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from ad import InputError

TIMEOUT = timedelta(minutes=30)  # longer than rank 0 takes to validate, while the others wait
alone = False  # is rank 0 at work for all of them?


def setup() -> None:
    """Join the other processes, if torchrun started several: NCCL between GPUs, gloo between CPUs.
    Of all of them rank 0 prints."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        if torch.cuda.is_available():
            local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local >= count:
                raise InputError(f"torchrun --nproc-per-node: this machine has {count} GPUs, and "
                                 "each process needs one")
            torch.cuda.set_device(local)
        dist.init_process_group(timeout=TIMEOUT)
        sys.stdout = sys.stdout if dist.get_rank() == 0 else None


def leave() -> None:
    """From now on every process is alone, and prints."""
    if dist.is_initialized():
        dist.destroy_process_group()
        sys.stdout = sys.__stdout__


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() and not alone else 1


def rank() -> int:
    return dist.get_rank() if size() > 1 else 0


def shard(items: list | torch.Tensor) -> list | torch.Tensor:
    """This rank's part of a sequence, or of a tensor's first axis; the parts differ by 1 at most.
    """
    return items[rank() * len(items) // size():(rank() + 1) * len(items) // size()]


class Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: torch.Tensor) -> torch.Tensor:
        values = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        return Total.apply(gradient)


def total(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over ranks, differentiable."""
    return Total.apply(values) if size() > 1 else values


def from_rank_0(function: Callable) -> object:
    """What function() returns on rank 0, on every rank; they end where it raises an error."""
    global alone
    if size() == 1:
        return function()
    box, alone = [None], rank() == 0
    try:
        box = [(function(),)] if alone else box
    finally:
        alone = False
        dist.broadcast_object_list(box)
    return box[0][0] if box[0] else sys.exit(2)


def gather(items: list) -> list:
    """The lists of all ranks, one after the other."""
    parts = [items] * size()
    if size() > 1:
        dist.all_gather_object(parts, items)
    return sum(parts, [])


def sum_gradients(model: torch.nn.Module) -> None:
    """Replace every gradient by the sum of those of all ranks."""
    if size() > 1:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = total(torch.cat([g.flatten() for g in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))
