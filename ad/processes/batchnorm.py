"""Batch normalisation over the images of all processes; nn.SyncBatchNorm does that on GPUs only."""

import torch
import torch.nn as nn

from ad.processes.distributed import size, total


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d with the moments of the whole batch, of all ranks: (N, C, H, W) -> the same.
    Gradients go through the sums of all ranks, too (Ioffe and Szegedy, ICML 2015, section 3)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        y = x.to(self.weight.dtype)
        # In double precision, mean of the squares minus square of the mean loses nothing.
        sums = [s.sum((0, 2, 3), dtype=torch.float64) for s in (y, y * y, torch.ones_like(y))]
        mean, squares, count = total(torch.stack(sums))
        mean, squares = mean / count, squares / count
        var = squares - mean ** 2
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean += self.momentum * (mean - self.running_mean)
            self.running_var += self.momentum * (var * count / (count - 1) - self.running_var)
        mean, var, weight, bias = (t.to(y.dtype).view(-1, 1, 1) for t in (
            mean, var, self.weight, self.bias))
        return ((y - mean) * (weight * (var + self.eps).rsqrt()) + bias).to(x.dtype)


def synchronise(model: nn.Module) -> None:
    """Turn the model's nn.BatchNorm2d into BatchNorm, where there are several processes."""
    for module in model.modules() if size() > 1 else ():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = BatchNorm
