r"""Ours beside anomalib's DRAEM, GANomaly, PatchCore and PaDiM: same files, size and cores.

    python -m venv venv-peers && venv-peers/bin/pip install -r requirements.txt \
        -r benchmarks/requirements.txt
    venv-peers/bin/python benchmarks/peers.py --data /path/to/mvtec_ad --minutes 5

Every method is a process of its own, from files to scores of the test split, at 256 px. What is
trained gets --minutes of training, is scored after a quarter, a half and all of it, and nothing is
chosen by those figures: reported is the last. anomalib's are its torch models, losses and published
optimiser settings in a plain loop, float32, as its trainer has it; its DRAEM wants the DTD
textures, which are not here, so its generator makes them of Perlin noise, as it does without a
folder. Its memories look at the EfficientNet-Lite0 that ours look at, PatchCore with a coreset of
RATIO of its patches. Ours: train.py's defaults with the epochs that fit (a cosine wants to know its
end); its validation images are left out of what is learned, the peers learn from them, too. Writes
benchmarks/results/peers.json after every method, leaves out what is there already, and draws
docs/figures/bench_peers.png.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from timing import FIGURES, RESULTS, alone, parser_of, record

import train
from ad import data, layouts
from ad.augment import symmetries
from ad.config import Scoring
from ad.fitting import remember
from ad.images import load_images
from ad.judging import calibrate
from ad.machine import choose_machine
from ad.masks import read_mask
from ad.metrics import auroc, pixel_auroc
from ad.model import build_model
from ad.models.backbones import load_backbone
from ad.models.memory import PatchMemory
from ad.options.read import given_scoring, model_arguments, training_from
from ad.pictures import plots
from ad.scoring import score_images
from ad.training import keep_freed_memory, make_updates, train_epoch

RATIO = {"toothbrush": 0.1, "transistor": 0.01}  # anomalib's 0.1 of the transistor takes an hour
SHARES = (0.25, 0.5, 1.0)
CPU = torch.device("cpu")


def floats(samples):
    """Files -> (N, 3, 256, 256) in [0, 1]."""
    return torch.cat([data.resize_long_side(i, 256) for i in load_images(samples, 256)])


def budgets(minutes, step, judge):
    """Call step() until SHARES of the budget are used up; rows of what judge() says then. The
    clock stands while it does."""
    used, rows = 0.0, []
    for share in SHARES:
        if used >= share * minutes * 60:  # a slow step was enough for two shares
            continue
        while used < share * minutes * 60:
            start = time.perf_counter()
            step()
            used += time.perf_counter() - start
        rows.append({"training_seconds": used} | judge())
    return rows


def evaluate(samples, score):
    """Figures of score(samples) -> (scores, maps [(256, 256)] or None)."""
    start = time.perf_counter()
    scores, maps = score(samples)
    seconds = (time.perf_counter() - start) / len(samples)
    masks = [read_mask(s.mask, 256, 256, s.path)[0].numpy() if s.mask else
             np.zeros((256, 256), bool) for s in samples]
    return {"image_auroc": auroc([s.label for s in samples], scores),
            "pixel_auroc": pixel_auroc(masks, maps) if maps else None,
            "seconds_per_image": seconds}


def peer_scores(model):
    """Scoring with a torch model of anomalib; GANomaly has no maps."""
    @torch.no_grad()
    def score(samples):
        model.eval()
        found = [model(floats(samples[i:i + 8])) for i in range(0, len(samples), 8)]
        model.train()
        return torch.cat([f.pred_score.flatten() for f in found]).tolist(), None \
            if found[0].anomaly_map is None else \
            [m.squeeze().numpy() for f in found for m in f.anomaly_map]
    return score


def our_scores(model, normals, scoring):
    """Scoring as infer.py does it, calibrated on normal images."""
    saved = calibrate(model, normals, scoring, CPU)

    def score(samples):
        scores, maps = zip(*score_images(model, load_images(samples, 256), saved, CPU))
        return torch.cat(scores).tolist(), [m[0].numpy() for batch in maps for m in batch]
    return score


def batches_of(images, size):
    """Endless random batches of (N, 3, H, W)."""
    while True:
        yield from (images[part] for part in torch.randperm(len(images)).split(size))


def draem(train, normals, test, options):
    from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
    from anomalib.models.image.draem.loss import DraemLoss
    from anomalib.models.image.draem.torch_model import DraemModel
    model, loss = DraemModel().train(), DraemLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    damage = PerlinAnomalyGenerator(blend_factor=(0.1, 1.0))
    batches = batches_of(floats(train + normals), 8)

    def step():
        images = next(batches)
        damaged, masks = damage(images)
        reconstruction, prediction = model(damaged)
        value = loss(images, reconstruction, masks, prediction)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return budgets(options.minutes, step, lambda: evaluate(test, peer_scores(model)))


def ganomaly(train, normals, test, options):
    from anomalib.models.image.ganomaly.loss import DiscriminatorLoss, GeneratorLoss
    from anomalib.models.image.ganomaly.torch_model import GanomalyModel
    model = GanomalyModel((256, 256), 3, 64, 100).train()
    loss_d, loss_g = DiscriminatorLoss(), GeneratorLoss()
    of_d, of_g = (torch.optim.Adam(part.parameters(), lr=2e-4, betas=(0.5, 0.999))
                  for part in (model.discriminator, model.generator))
    batches = batches_of(floats(train + normals), 32)

    def step():  # as Ganomaly.training_step
        padded, fake, latent_i, latent_o = model(next(batches))
        real = model.discriminator(padded)[0]
        value = loss_g(latent_i, latent_o, padded, fake, real, model.discriminator(fake)[0])
        of_g.zero_grad()
        value.backward(retain_graph=True)
        of_g.step()
        value = loss_d(real, model.discriminator(fake.detach())[0])
        of_d.zero_grad()
        value.backward()
        of_d.step()
    return budgets(options.minutes, step, lambda: evaluate(test, peer_scores(model)))


def memorise(build, train, test, learn=lambda model: None):
    """The row of anomalib's memory that build(EfficientNet-Lite0, names of its layers) makes."""
    start, (backbone, _) = time.perf_counter(), load_backbone("efficientnet_lite0", (8, 16))
    model = build(backbone, [f"parts.{index}" for index in backbone.take]).train()
    model.feature_extractor.eval()
    with torch.no_grad():
        for batch in floats(train).split(16):
            model(batch)
        learn(model)
    return [{"training_seconds": time.perf_counter() - start} | evaluate(test, peer_scores(model))]


def patchcore(train, normals, test, options):
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    return memorise(lambda backbone, layers: PatchcoreModel(layers=layers, backbone=backbone),
                    train + normals, test,
                    lambda model: model.subsample_embedding(RATIO.get(options.category, 0.1)))


def padim(train, normals, test, options):
    from anomalib.models.image.padim import torch_model
    extractor = torch_model.TimmFeatureExtractor

    def build(backbone, layers):
        # Its own class passes on only a name, where its extractor takes a module, too.
        with mock.patch.object(torch_model, "TimmFeatureExtractor", lambda backbone, layers, **_:
                               extractor(backbone=backbone, layers=layers)):
            return torch_model.PadimModel(backbone=backbone, layers=layers, n_features=100)
    return memorise(build, train + normals, test, lambda model: model.fit())


def unet(train, normals, test, options):
    """Repair; its memory and its calibration are made anew for every figure."""
    args, machine, seconds = options.defaults, options.machine, []
    images, normals = load_images(train, 256), load_images(normals, 256)
    model = build_model("unet", **model_arguments(args)).to(memory_format=torch.channels_last)
    keep_freed_memory()
    plan = replace(training_from(args), symmetries=tuple(symmetries(images)))
    updates, scoring = make_updates(model, plan, machine), Scoring(**given_scoring(args))

    def step():
        nonlocal updates
        start = time.perf_counter()
        train_epoch(model, (images, None), updates, min(len(seconds) + 1, updates.plan.epochs))
        seconds.append(time.perf_counter() - start)
        epochs = max(2, round(options.minutes * 60 / statistics.median(seconds)))
        updates = updates._replace(plan=replace(plan, epochs=epochs))

    def judge():
        start = time.perf_counter()
        model.memory = remember(model, images, scoring.window_input, CPU, 0)
        score = our_scores(model, normals, scoring)
        extra = {"memory_seconds": time.perf_counter() - start}
        result = evaluate(test, score)
        model.memory = None
        return result | extra
    return budgets(options.minutes, step, judge)


def memory(train, normals, test, options, backbone="gradients"):
    start = time.perf_counter()
    model = PatchMemory(backbone=backbone)
    model.fit(floats(train).split(1))
    score = our_scores(model, load_images(normals, 256), Scoring(windows=(0,)))
    return [{"training_seconds": time.perf_counter() - start} | evaluate(test, score)]


def lite0_memory(*parts):
    return memory(*parts, backbone="efficientnet_lite0")


METHODS = {"ours, U-Net": unet, "ours, gradients": memory, "ours, Lite0": lite0_memory,
           "PatchCore": patchcore, "PaDiM": padim, "GANomaly": ganomaly, "DRAEM": draem}


def run_method(name, options):
    """Print the JSON of one method on one category: be the process that is measured."""
    torch.manual_seed(0)
    with mock.patch.object(sys, "argv", ["train.py", "--data", options.data, "--category",
                                         options.category]):
        options.defaults = train.parse_args()
    options.machine = choose_machine("cpu")
    root = Path(options.data)
    parts = data.split_normals(layouts.find_samples(root, options.category, "train"), 0.1, 0)
    rows = METHODS[name](*parts, layouts.find_samples(root, options.category, "test"), options)
    print(json.dumps({"rows": rows}))


def draw(results, path):
    """AUROC of the test split against seconds of training: images above, pixels below."""
    figure, axes = plots.plt.subplots(2, len(results), figsize=(4.6 * len(results), 6.2),
                                      squeeze=False, layout="constrained", sharex=True)
    for column, (category, found) in zip(axes.T, results.items()):
        for name, marker, colour in zip(METHODS, "os^DvPX", plots.COLOURS):
            rows = found.get(name, {"rows": []})["rows"]
            for axis, key in zip(column, ("image_auroc", "pixel_auroc")):
                known = [r for r in rows if r[key] is not None]
                axis.plot([r["training_seconds"] for r in known], [r[key] for r in known],
                          marker=marker, color=colour, label=name)
        column[0].set(title=category, ylabel="image AUROC, test split", xscale="log")
        column[1].set(xlabel="seconds of training", ylabel="pixel AUROC, test split")
        for axis in column:
            axis.grid(alpha=0.3)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8)
    plots.save_figure(path, figure)


def main():
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--data", required=True)
    add("--categories", nargs="+", default=["toothbrush", "transistor"])
    add("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    add("--minutes", type=float, default=5.0, help="of training, for what is trained (default: 5)")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--out", type=Path, default=RESULTS / "peers.json")
    add("--only", nargs=2, metavar=("METHOD", "CATEGORY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        name, options.category = options.only
        return run_method(name, options)
    saved = json.loads(options.out.read_text()) if options.out.is_file() else {"results": {}}
    if saved.get("minutes", options.minutes) != options.minutes:
        sys.exit(f"{options.out} is of --minutes {saved['minutes']}; give another --out")
    results = saved["results"]
    for category in options.categories:
        for name in options.methods:
            if name in results.setdefault(category, {}):
                continue
            found = alone(*sys.argv[1:], "--only", name, category)
            print(f"{category}, {name}: {found['rows'][-1]}", flush=True)
            results[category][name] = found
            record(options.out, ("anomalib",), minutes=options.minutes, results=results)
    draw(results, FIGURES / "bench_peers.png")


if __name__ == "__main__":
    main()
