"""Look at what a model does: reconstructions, error maps, and a collapse check.

    python visualize.py --ckpt epoch_12.pt                   # a short name below runs/, or a path
    python visualize.py --ckpt best.pt --ids 1512 832 1700   # chosen test images, by file name
    python visualize.py --compare RUN RUN                    # folders of runs, beside each other
    python visualize.py --report                             # what infer.py left, as one web page

Writes results/look_<category>_<run>_<checkpoint>.png: input | reconstruction | error map | overlay
| mask of test images and of CutPaste images, and prints four numbers that tell whether the model
repairs, copies, blurs, or has collapsed. --report writes results/report.html, one file that any
browser opens without a network: metrics and curves of every category in results/metrics.json, and
a gallery of the test images in results/scores.csv, the worst mistakes first.
"""

import random
from pathlib import Path

import torch

from ad import categories, checkpoint, classify, compare, data, layouts, plots, report
from ad.classifier import grad_cam
from ad.arguments import add_data_arguments, add_scoring_arguments
from ad.cli import Parser, autocast, command, require, run_script, select_device, select_precision
from ad.collapse import check_member, print_check, reconstructs, side_seen
from ad.cutpaste import cutpaste, seeded_generator
from ad.ensemble import load_member
from ad.images import load_images, reading
from ad.masks import read_mask
from ad.runs import run_images
from ad.samples import named
from ad.scoring import resized, score_images, standardise
from ad.threshold import decide_threshold, top_of_maps
from ad.scoring import resized, score_images, standardise
from ad.threshold import parse_threshold, top_of_maps


def build_parser():
    parser = Parser(__doc__)
    add_data_arguments(parser)
    parser.add_argument("--ckpt", metavar="FILE",
                        help="checkpoint: a path, or a name that is unique below --runs; with "
                        "--report as for infer.py (default there: best.pt)")
    parser.add_argument("--report", action="store_true", help="report.html about scores.csv and "
                        "metrics.json in --results, with the runs that they name")
    parser.add_argument("--compare", nargs="+", metavar="RUN", help="curves, bars and a table of "
                        "these run folders; their test figures are those that infer.py "
                        "--separately left in --results")
    parser.add_argument("--detector", metavar="FILE", help="with a classifier's --ckpt: a "
                        "checkpoint whose anomaly maps are shown beside its Grad-CAM")
    parser.add_argument("--ids", nargs="+", action="extend", metavar="ID", help="test images by id "
                        "or file name, with or without folder and suffix (default: random ones)")
    parser.add_argument("--count", type=int, default=5, metavar="N",
                        help="random test images to show (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choice (default: 0)")
    add_scoring_arguments(parser, trained=True)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                        help="folder to write into (default: results)")
    return parser


def parse_args():
    args = build_parser().parse_args()
    require(bool(args.ckpt or args.report) != bool(args.compare),
            "give --ckpt FILE, --report or --compare RUN RUN ..., one of them")
    require(args.count >= 0, f"--count must not be negative, got {args.count}")
    require(args.window_batch > 0, f"--window-batch must be positive, got {args.window_batch}")
    return args


def pick(samples, ids, count, seed):
    """Test samples named by `ids`, or `count` random ones of which half are anomalous."""
    if ids:
        return named(samples, ids)
    draw = random.Random(seed)
    anomalous = [s for s in samples if s.label]
    normal = [s for s in samples if not s.label]
    few = min(len(normal), count // 2)
    return (draw.sample(anomalous, min(len(anomalous), count - few)) + draw.sample(normal, few))


@torch.no_grad()
def anomaly_maps(member, images, pictures, device, args):
    """(captions, overlays) of uint8 images, whose `pictures` the maps are laid over."""
    with autocast(device, args.precision):
        parts = list(score_images(member["model"], images, member["calibration"], device,
                                  args.window_batch))
    maps = [map_ for _, batch in parts for map_ in batch]
    scores, normal = (standardise(s, member["normal"]) for s in (
        torch.cat([s for s, _ in parts]), member["normal"]))
    threshold = parse_threshold("quantile:0.99")(normal)
    return [plots.caption(score, threshold) for score in scores], [
        plots.overlay(picture, map_, top_of_maps([member])) for picture, map_ in
        zip(pictures, maps)]


@torch.no_grad()
def show(member, images, masks, detector, device, args):
    """Captions of uint8 images, and pictures of them: {title of a column: one picture an image}.

    detector: another member, whose anomaly maps a classifier's Grad-CAM is shown beside, or None.
    """
    model = member["model"]
    floats = [data.to_float(image, device) for image in images]
    pictures = [plots.to_picture(image) for image in floats]
    columns = {"input": pictures}
    captions, overlays = anomaly_maps(member, images, pictures, device, args)
    if hasattr(model, "classes"):
        cams = [grad_cam(model, image[None]) for image in floats]
        columns["Grad-CAM"] = [plots.overlay(p, cam[0], 1.0) for p, (cam, _) in zip(pictures, cams)]
        overlays = anomaly_maps(detector, images, pictures, device, args)[1] if detector else None
        captions = [f"{model.classes[winner]}\n{text}" for (_, winner), text in
                    zip(cams, captions)]
    elif reconstructs(model):
        predict = resized(model, side_seen(member))
        with autocast(device, args.precision):
            outputs = [predict(image[None])[0].float() for image in floats]
        errors = [(output - image).abs().mean(0, keepdim=True)
                  for output, image in zip(outputs, floats)]
        top = max(error.quantile(0.999).item() for error in errors)
        columns["reconstruction"] = [plots.to_picture(output) for output in outputs]
        columns["error |x - x'|"] = [plots.heat(error, top) for error in errors]
    if overlays:
        columns["anomaly map"] = overlays
    columns["mask"] = [None if m is None else plots.to_picture(m.float()) for m in masks]
    return captions, columns


def compare_runs(args):
    """--compare: compare_curves.png, compare_bars.png and compare.md in --results."""
    runs = [compare.load_run(folder, args.results) for folder in args.compare]
    compare.save_curves(args.results / "compare_curves.png", runs)
    table = compare.markdown([compare.summary(run) for run in runs])
    checkpoint.write_atomic(args.results / "compare.md", table)
    written = ["compare_curves.png", "compare.md"]
    if any(run["test"] for run in runs):
        compare.save_bars(args.results / "compare_bars.png", runs)
        written.append("compare_bars.png")
    else:
        folders = {Path(run).absolute().parent: Path(run) for run in args.compare}
        print(f"no test figures of these runs in {args.results}: " + " && ".join(
            command("infer.py", args.data or read_arguments(run / "config.json").get("data"),
                    folder.parent, "--category", folder.name.removesuffix("-classes"),
                    "--separately", "--results", args.results) for folder, run in folders.items()))
    print(table + "wrote " + ", ".join(str(args.results / name) for name in written))


@torch.no_grad()
def save_latent(path, model, images, generator):
    """Pictures of a VAE's latent space: images decoded from noise, and, a row for each of two
    pairs of images (2 or more (3, H, W) in [0, 1]), the way from one mean latent to the other."""
    noise = torch.randn(16, model.latent_dim, generator=generator, device=generator.device)
    rows = [list(model.decode(part)) for part in noise.split(8)]
    means = [model.encode(model.resize(image[None]))[0] for image in images[:4]]
    for first, last in zip(means[::2], means[1::2]):
        way = torch.linspace(0, 1, 8, device=first.device)[:, None]
        rows.append(list(model.decode((1 - way) * first + way * last)))
    plots.save_grid(path, [[plots.to_picture(p) for p in row] for row in rows], [""] * 8,
                    ["from noise", "from noise"] + ["from one\nto another"] * (len(rows) - 2))


def main():
    args = parse_args()
    if args.compare:
        return compare_runs(args)
    device = select_device(args.device, args.deterministic)
    args.precision = select_precision(args.precision, device)
    if args.report:
        return report.write_report(args, device)
    path = checkpoint.find(args.ckpt, args.runs)
    member = load_member(path, args, device) | {"weight": 1.0}
    config = member["config"]
    root = layouts.resolve_data(args.data or config["root"])
    category = config["category"]
    table = categories.full_table(root, Path(args.runs))
    samples = classify.own_samples(root, config) if "test" in config else \
        layouts.find_samples(root, category, "test", table)
    samples = pick(samples, args.ids, args.count, args.seed)
    images = load_images(samples, *reading(config))
    masks = [read_mask(s.mask, *image.shape[1:], s.path) if s.mask else None if s.label else
             torch.zeros(1, *image.shape[1:]) for s, image in zip(samples, images)]
    several = len({s.category for s in samples}) > 1
    labels = [f"{s.category}\n{s.id}" if several else s.id for s in samples]
    normals = run_images(config, "validation", most=8)
    for index, image in enumerate(normals[:2]):
        generator = seeded_generator(torch.device("cpu"), args.seed, index)
        pasted, mask = cutpaste(image[None].float() / 255, generator)
        images.append((pasted[0] * 255).round().byte())
        masks.append(mask[0])
        labels.append("CutPaste")
    detector = load_member(checkpoint.find(args.detector, args.runs), args, device) \
        if args.detector else None
    captions, columns = show(member, images, masks, detector, device, args)
    labels = [f"{label}\n{text}" for label, text in zip(labels, captions)]
    out = args.results / f"look_{category}_{path.parent.name}_{path.stem}.png"
    plots.save_grid(out, list(zip(*columns.values())), tuple(columns), labels,
                    "scores are in standard deviations of those of normal images, the threshold is "
                    "their 99 % quantile; the map is coloured from 0.8 times it upwards")
    print(f"wrote {out}")
    if hasattr(member["model"], "decode"):
        out = args.results / f"latent_{category}_{path.parent.name}_{path.stem}.png"
        save_latent(out, member["model"], [data.to_float(i, device) for i in normals],
                    seeded_generator(device, args.seed))
        print(f"wrote {out}")
    if not reconstructs(member["model"]):
        return print("no collapse check: this model does not reconstruct")
    print_check(check_member(member, normals, args, device))


if __name__ == "__main__":
    run_script(main)
