"""Batch normalisation over the images of all processes; nn.SyncBatchNorm does that on GPUs only."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ad.processes.distributed import size, total


class Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, mean and var being the moments of all ranks' x,
    of which there are `count` values to a channel."""

    @staticmethod
    def forward(ctx, x, weight, bias, moments, eps):
        ctx.save_for_backward(x, weight, bias, *moments)
        ctx.eps = eps
        return F.batch_norm(x, *moments[:2], weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx, gradient):
        *inputs, mean, var, count = ctx.saved_tensors
        with torch.enable_grad():  # the moments held constant
            x, weight, bias = inputs = [t.detach().requires_grad_() for t in inputs]
            y = F.batch_norm(x, mean, var, weight, bias, False, 0.0, ctx.eps)
        by_x, *own = torch.autograd.grad(y, inputs, gradient)
        # Through the moments: Ioffe and Szegedy, ICML 2015, section 3, the sums over all ranks.
        by_weight, by_bias = total(torch.stack(own)) / count
        slope = -weight * by_weight / (var + ctx.eps)
        shift = -weight * by_bias * (var + ctx.eps).rsqrt() - slope * mean
        slope, shift = (t.detach().to(x.dtype).view(-1, 1, 1) for t in (slope, shift))
        return by_x + x.detach() * slope + shift, *own, None, None


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d with the moments of the whole batch, of all ranks."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        y = x.detach().to(self.weight.dtype)
        # In double precision, mean of the squares minus square of the mean loses nothing.
        sums = [s.sum((0, 2, 3), dtype=torch.float64) for s in (y, y * y, torch.ones_like(y))]
        mean, squares, count = total(torch.stack(sums))
        mean, squares = mean / count, squares / count
        var = squares - mean ** 2
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean += self.momentum * (mean - self.running_mean)
            self.running_var += self.momentum * (var * count / (count - 1) - self.running_var)
        moments = [m.to(y.dtype) for m in (mean, var, count)]
        return Normalise.apply(x, self.weight, self.bias, moments, self.eps)


def synchronise(model):
    """Turn the model's nn.BatchNorm2d into BatchNorm, where there are several processes."""
    for module in model.modules() if size() > 1 else ():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = BatchNorm
