"""A training step against what the bare network costs, and against the obvious way to write it.

    python benchmarks/train_step.py --data /path/to/mvtec_ad

The U-Net with train.py's defaults (256 px, batch 8), in one process, round after round: our epoch,
the very function that train.py calls; the network alone, forward and backward, on a batch that is
there already; the same with MSE and SSIM; and a DataLoader that decodes and resizes
files, float32, NCHW. Writes results/train_step.json and docs/figures/bench_train_step.png.
"""

import sys
import time
from dataclasses import replace

import torch
from PIL import Image
from timing import FIGURES, alternate, arguments, report
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.functional import pil_to_tensor

import train
from ad import data, layouts
from ad.pictures import plots
from ad.augment import at_one_size, symmetries
from ad.images import load_images
from ad.machine import choose_machine
from ad.model import build_model
from ad.options.read import model_arguments, training_from
from ad.training import keep_freed_memory, make_updates, train_epoch

STEPS = 4  # of a round


class Files(torch.utils.data.Dataset):
    """What one writes first: every image decoded and resized whenever it is asked for."""

    def __init__(self, paths, size):
        self.paths, self.size = paths, size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = Image.open(self.paths[index]).convert("RGB").resize((self.size, self.size))
        return pil_to_tensor(image).float() / 255


def ours(images, args, machine):
    """Our epoch of STEPS batches."""
    model = build_model("unet", **model_arguments(args)).to(memory_format=torch.channels_last)
    plan = replace(training_from(args), epochs=200, symmetries=tuple(symmetries(images)))
    updates, images = make_updates(model, plan, machine), at_one_size(model, images, plan)
    return lambda: train_epoch(model, (images, None), updates, 1)


def bare(batch, args, machine, loss):
    """STEPS times forward and backward; returns it, and the floating-point operations of a step."""
    model = build_model("unet", **model_arguments(args) | {"objective": "reconstruct"} if loss else
                        model_arguments(args)).to(memory_format=torch.channels_last).train()
    batch = batch.contiguous(memory_format=torch.channels_last)

    def step():
        with machine.autocast():
            result = model.loss(batch, None)["loss"] if loss else model.outputs(batch)
        model.zero_grad(set_to_none=True)
        result.backward(torch.ones_like(result))
    with FlopCounterMode(display=False) as counter:
        step()
    return lambda: [step() for _ in range(STEPS)], counter.get_total_flops()


def obvious(paths, args, workers):
    """The same network, damage and loss, float32, NCHW, with a plain Adam and a DataLoader."""
    model = build_model("unet", **model_arguments(args)).train()
    optimizer = torch.optim.Adam(model.parameters(), args.lr, weight_decay=args.weight_decay)
    loader = torch.utils.data.DataLoader(Files(paths, args.long_side[0]), args.batch, shuffle=True,
                                         num_workers=workers, persistent_workers=workers > 0)
    generator = torch.Generator().manual_seed(0)

    def epoch():
        for batch in loader:
            loss = model.loss(batch, generator)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return epoch


def gemm_peak(dtype, size=2048, runs=10):
    """The fastest of `runs` matrix products, in GFLOP/s."""
    a, b = (torch.randn(size, size, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * size ** 3 / best / 1e9


def draw(rows, machine, path):
    """Bars of images/s, with each as a share of ours."""
    figure, axis = plots.plt.subplots(figsize=(7.5, 3.2), layout="constrained")
    names = list(rows)[::-1]
    values = [rows[name]["images_per_s"] for name in names]
    axis.barh(names, values, color=[plots.COLOURS[0 if n == "ours" else 5] for n in names])
    for place, (name, value) in enumerate(zip(names, values)):
        axis.text(value, place, f" {value:.1f} ({1 / rows[name]['ratio']:.2f} x ours)", va="center")
    axis.set(xlabel="images/s, more is better", title=f"A training step, 256 px, {machine}")
    axis.margins(x=0.4)
    plots.save_figure(path, figure)


def compare(options, images, paths, batch, runs, machine):
    """{name: its row}: ours, and what it is compared with, on this Machine."""
    network, flops = bare(batch, options, machine, loss=False)
    rows = alternate({
        "ours": ours(images, options, machine), "network alone": network,
        "network, MSE, SSIM": bare(batch, options, machine, loss=True)[0],
        "obvious": obvious(paths, options, 0), "obvious, 2 workers": obvious(paths, options, 2),
    }, runs)
    for name, row in rows.items():
        row["images_per_s"] = len(paths) / row["seconds"]
    rows["network alone"]["gflop_per_s"] = flops * STEPS / rows["network alone"]["seconds"] / 1e9
    rows["ours"]["gflop_per_s"] = flops * STEPS / rows["ours"]["seconds"] / 1e9
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        rows["network alone"][f"{name}_gemm_gflop_per_s"] = gemm_peak(dtype)
    return rows


def main():
    args = arguments(__doc__, lambda add: (
        add("--data", required=True), add("--category", default="transistor")))
    sys.argv = ["train.py", "--data", args.data, "--category", args.category]
    options, best = train.parse_args(), choose_machine("cpu").precision
    samples = layouts.find_samples(layouts.resolve_data(args.data), args.category, "train")
    samples = samples[:STEPS * options.batch]
    if len(samples) < STEPS * options.batch:
        sys.exit(f"{args.category} has fewer than {STEPS * options.batch} training images")
    images, paths = load_images(samples, options.image_size), [s.path for s in samples]
    batch = torch.cat([data.resize_to(data.to_float(i, i.device)[None], (options.long_side[0],) * 2)
                       for i in images[:options.batch]])
    keep_freed_memory()
    results = {}
    for precision in dict.fromkeys((best, "fp32")):  # many machines have fp32 only
        results[f"{args.category}, {precision}"] = compare(
            options, images, paths, batch, args.runs, choose_machine("cpu", precision))
    report(args, "train_step", results, ("torchvision",))
    draw(next(iter(results.values())), f"{args.threads} threads, {best}",
         FIGURES / "bench_train_step.png")


if __name__ == "__main__":
    main()
