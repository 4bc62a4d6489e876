"""Look at what a model does: reconstructions, error maps, and a collapse check.

    python visualize.py --ckpt epoch_12.pt                   # a short name below runs/, or a path
    python visualize.py --ckpt best.pt --ids 1512 832 1700   # chosen test images, by file name
    python visualize.py --compare RUN RUN                    # folders of runs, beside each other
    python visualize.py --report                             # what infer.py left, as one web page

Writes results/look_<category>_<run>_<checkpoint>.png: input | reconstruction | error | anomaly map
| mask of test images and of CutPaste images, and prints five numbers that tell whether the model
repairs, copies, blurs, or has collapsed. --report writes results/report.html, one file that any
browser opens without a network: metrics and curves of every category in results/metrics.json, and
a gallery of the test images in results/scores.csv, the worst mistakes first.
"""

import random
from argparse import Namespace
from pathlib import Path

import ad
from ad.cli import Parser, command, require, run_script
from ad.options.add import add_data_arguments

FIRST = ("data", "runs", "ckpt", "report", "compare", "ids", "count", "results")


def build_parser() -> Parser:
    parser = Parser(__doc__, FIRST)
    add_data_arguments(parser, categories=False)
    parser.add_argument("--ckpt", metavar="FILE",
                        help="checkpoint: a path, or a name that is unique below --runs")
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
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                        help="folder to write into (default: results)")
    return parser


def parse_args() -> Namespace:
    args = build_parser().parse_args()
    require(bool(args.ckpt) + args.report + bool(args.compare) == 1,
            "give --ckpt FILE, --report or --compare RUN RUN ..., one of them")
    require(args.count >= 0, f"--count must not be negative, got {args.count}")
    require(args.window_batch > 0, f"--window-batch must be positive, got {args.window_batch}")
    return args


def pick(samples: list, ids: list[str] | None, count: int, seed: int) -> list:
    """Test samples named by `ids`, or `count` random ones of which half are anomalous, or not
    known, where there are so many."""
    if ids:
        return ad.sets.files.named(samples, ids)
    draw = random.Random(seed)
    normal, anomalous = ([s for s in samples if bool(s.label) == odd] for odd in (False, True))
    few = min(len(normal), max(count // 2, count - len(anomalous)))
    return draw.sample(anomalous, min(len(anomalous), count - few)) + draw.sample(normal, few)


def anomaly_maps(detector: "ad.detector.Detector", images: list,
                 pictures: list) -> tuple[list[str], list]:
    """(captions, overlays) of uint8 images, whose `pictures` the maps are laid over."""
    scores, _, maps = detector.score_read({way: images for way in detector.readings})
    return [ad.pictures.plots.caption(score) for score in scores], [
        ad.pictures.plots.overlay(picture, map_, detector.top_of_maps)
        for picture, map_ in zip(pictures, maps)]


def show(detector: "ad.detector.Detector", images: list, masks: list,
         other: "ad.detector.Detector | None") -> tuple[list[str], dict[str, list]]:
    """Captions of uint8 images, and pictures of them: {title of a column: one picture an image}.

    detector: of one run; other: another, whose anomaly maps a classifier's Grad-CAM is shown
    beside, or None.
    """
    plots, member, machine = ad.pictures.plots, detector.members[0], detector.machine
    floats = [ad.data.to_float(image, machine.device) for image in images]
    pictures = [plots.to_picture(image) for image in images]
    columns = {"input": pictures}
    captions, overlays = anomaly_maps(detector, images, pictures)
    if hasattr(member.model, "classes"):
        cams = [ad.models.classifier.grad_cam(member.model, image[None]) for image in floats]
        columns["Grad-CAM"] = [plots.overlay(p, cam[0], 1.0) for p, (cam, _) in zip(pictures, cams)]
        overlays = anomaly_maps(other, images, pictures)[1] if other else None
        captions = [f"class: {member.model.classes[winner]}\n{text}" for (_, winner), text in
                    zip(cams, captions)]
    elif ad.pictures.collapse.reconstructs(member.model):
        outputs = ad.pictures.collapse.reconstruct(member, floats)
        errors = [(output - image).abs().mean(0, keepdim=True)
                  for output, image in zip(outputs, floats)]
        top = max(error.quantile(0.999).item() for error in errors)
        columns["reconstruction"] = [plots.to_picture(output) for output in outputs]
        columns["error |x - x'|"] = [plots.heat(error, top) for error in errors]
    if overlays:
        columns["anomaly map"] = overlays
    columns["mask"] = [None if m is None else plots.to_picture(m.float()) for m in masks]
    return captions, columns


def compare_runs(args: Namespace) -> None:
    """--compare: compare_curves.png, compare_bars.png and compare.md in --results."""
    runs = [ad.pictures.compare.load_run(folder, args.results) for folder in args.compare]
    ad.pictures.compare.save_curves(args.results / "compare_curves.png", runs)
    table = ad.pictures.compare.markdown([ad.pictures.compare.summary(run) for run in runs])
    ad.checkpoint.write_atomic(args.results / "compare.md", table)
    written = ["compare_curves.png", "compare.md"]
    if any(run["test"] for run in runs):
        ad.pictures.compare.save_bars(args.results / "compare_bars.png", runs)
        written.append("compare_bars.png")
    else:
        folders = {ad.folders.whole_path(path).parent: args.data or run["config"]["root"]
                   for path, run in zip(args.compare, runs)}
        lines = [command("infer.py", data, folder.parent, "--category",
                         folder.name.removesuffix("-classes"), "--separately", "--results",
                         args.results) for folder, data in folders.items()
                 if not ad.sets.other_layouts.only_normal(Path(data))]
        print(f"no test figures of these runs in {args.results}"
              + (": " + " && ".join(lines) if lines else ", and no images to test with"))
    print(table + "wrote " + ", ".join(str(args.results / name) for name in written))


def looked_at(detector: "ad.detector.Detector", args: Namespace) -> tuple[list, list, list[str]]:
    """Test images to show, with their masks (None: not known) and labels, and CutPaste images of
    normal ones."""
    config = detector.config
    root = ad.layouts.resolve_data(args.data or config["root"])
    table = ad.jobs.full_table(root, args.runs)
    other = ad.sets.other_layouts
    samples = other.own_samples(root, config) if "test" in config else \
        other.photos_to_look_at(root, config) if ad.layouts.layout(root) == "photos" else \
        other.judging_samples(root, config) if other.has_no_test(root) else \
        ad.layouts.find_samples(root, config["category"], "test", table)
    samples = pick(samples, args.ids, args.count, args.seed)
    images = ad.images.load_images(samples, *detector.readings[0])
    masks = [ad.masks.true_mask(s.mask, s.label, image.shape[1:], s.path)
             for s, image in zip(samples, images)]
    several = len({s.category for s in samples}) > 1
    labels = [f"{s.category}\n{s.id}" if several else s.id for s in samples]
    for index, image in enumerate(ad.runs.run_images(config, "validation", most=2)):
        pasted, mask = ad.cutpaste.cutpaste(
            image[None].float() / 255, ad.cutpaste.seeded_generator("cpu", args.seed, index))
        images.append((pasted[0] * 255).round().byte())
        masks.append(mask[0])
        labels.append("CutPaste")
    return images, masks, labels


def main(args: Namespace) -> None:
    pictures = ad.pictures
    if args.compare:
        return compare_runs(args)
    machine = ad.machine.choose_machine(args.device, window_batch=args.window_batch,
                                        deterministic=args.deterministic)
    if args.report:
        return pictures.report.write_report(args.results, args.runs, args.data, machine)
    path = ad.checkpoint.find(args.ckpt, args.runs)

    def load(file):
        return ad.detector.Detector.load(file, machine, data=args.data)
    detector = load(path)
    other = load(ad.checkpoint.find(args.detector, args.runs)) if args.detector else None
    images, masks, labels = looked_at(detector, args)
    captions, columns = show(detector, images, masks, other)
    labels = [f"{label}\n{text}" for label, text in zip(labels, captions)]
    name = f"{detector.config['category']}_{path.parent.name}_{path.stem}.png"
    pictures.plots.save_grid(
        args.results / f"look_{name}", list(zip(*columns.values())), tuple(columns), labels,
        "a score is 0 for a typical normal image and 1 at the threshold" + (
            "; the map is coloured from 0.8 times the 99 % quantile of normal images on"
            if "anomaly map" in columns else ""))
    print(f"wrote {args.results / f'look_{name}'}")
    model = detector.members[0].model
    normals = ad.runs.run_images(detector.config, "validation", most=8)
    if hasattr(model, "decode"):
        pictures.latent.save_latent(args.results / f"latent_{name}", model, [
            ad.data.to_float(image, machine.device) for image in normals], args.seed)
        print(f"wrote {args.results / f'latent_{name}'}")
    if pictures.collapse.reconstructs(model):
        pictures.collapse.print_check(pictures.collapse.check_member(
            detector.members[0], normals, machine, args.seed))
    else:
        print("no collapse check: this model does not reconstruct")


if __name__ == "__main__":
    run_script(parse_args, main)
