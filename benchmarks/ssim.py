"""Our SSIM against pytorch-msssim, kornia, torchmetrics and piq: same inputs, one run.

    pip install -r benchmarks/requirements.txt && python benchmarks/ssim.py

Loss forward, and forward + backward, on 8 x 3 x 256 x 256 float32, window 11, sigma 1.5.
"""

import torch
from timing import alternate, arguments, report

import kornia
import piq
import pytorch_msssim
from torchmetrics.functional.image import structural_similarity_index_measure

from ad.ssim import ssim_loss, ssim_map

LOSSES = {
    "ours": lambda x, y: ssim_loss(x, y, 1.0),
    "pytorch-msssim": lambda x, y: 1 - pytorch_msssim.ssim(x, y, data_range=1.0),
    "kornia": lambda x, y: 1 - kornia.metrics.ssim(x, y, 11, padding="valid").mean(),
    "torchmetrics": lambda x, y: 1 - structural_similarity_index_measure(
        x, y, sigma=1.5, kernel_size=11, data_range=1.0),
    "piq": lambda x, y: 1 - piq.ssim(x, y, data_range=1.0, downsample=False),
}


def main():
    args = arguments(__doc__)
    torch.manual_seed(0)
    y = torch.rand(8, 3, 256, 256)
    x = (y + 0.1 * torch.randn_like(y)).clamp(0, 1).requires_grad_()
    gradients = {}

    def backward(name):
        def run():
            gradients[name], = torch.autograd.grad(LOSSES[name](x, y), x)
        return run

    def forward(name):
        def run():
            with torch.no_grad():
                LOSSES[name](x, y)
        return run
    results = {"forward": alternate({n: forward(n) for n in LOSSES}, args.runs),
               "forward + backward": alternate({n: backward(n) for n in LOSSES}, args.runs)}
    for name, loss in LOSSES.items():
        # torchmetrics averages over the reflect-padded map, the others over the valid one.
        same = (1 - ssim_map(x, y, 1.0, padding="reflect").mean() if name == "torchmetrics"
                else LOSSES["ours"](x, y))
        expected, = torch.autograd.grad(same, x)
        difference = abs(loss(x, y).item() - same.item())
        results["forward"][name]["difference"] = difference
        relative = ((gradients[name] - expected).norm() / expected.norm()).item()
        results["forward + backward"][name]["gradient difference"] = relative
        assert difference < 1e-4 and relative < 1e-3, f"{name} computes something else"
    report(args, "ssim", results, ("pytorch-msssim", "kornia", "torchmetrics", "piq"))


if __name__ == "__main__":
    main()
