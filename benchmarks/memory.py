"""The memory of normal features against anomalib's PatchCore, and its search against scikit-learn.

    pip install -r benchmarks/requirements.txt anomalib && python benchmarks/memory.py --data DIR

End to end, from image files to the scores of the test split, in one process: the same images at 256
pixels, the same EfficientNet-Lite0 maps at strides 8 and 16, float32. Ours keeps a coreset of 0.1,
leaves the validation images out of its bank and calibrates on them; anomalib's bank has all normal
images, and a coreset of RATIO: 0.1 of the transistor would take it more than an hour. Before that,
and without --data instead: the search alone, and what a fit costs as the images become more.
"""

import multiprocessing
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors
from timing import alternate, arguments, report

from ad import data, layouts
from ad.models.backbones import load_backbone
from ad.config import Scoring
from ad.images import load_images
from ad.judging import calibrate
from ad.models.memory import PatchMemory
from ad.metrics import auroc
from ad.neighbours import nearest
from ad.scoring import score_images

RATIO = {"toothbrush": 0.1, "transistor": 0.01}


def batches(samples):
    """Files -> (16 or fewer, 3, 256, 256) in [0, 1]."""
    images = [data.resize_long_side(i, 256) for i in load_images(samples, 512)]
    return torch.cat(images).split(16)


def ours(train, validation, test, **options):
    torch.manual_seed(0)
    model, device = PatchMemory(backbone="efficientnet_lite0", **options), torch.device("cpu")
    model.fit(batches(train))
    normals, images = (load_images(part, 512) for part in (validation, test))
    saved = calibrate(model, normals, Scoring(windows=(0,)), device)
    return torch.cat([s for s, _ in score_images(model, images, saved, device)]).tolist()


@torch.no_grad()
def anomalib(train, validation, test, ratio):
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    torch.manual_seed(0)
    backbone, _ = load_backbone("efficientnet_lite0", (8, 16))
    layers = [f"parts.{index}" for index in backbone.take]
    model = PatchcoreModel(layers=layers, backbone=backbone)
    model.train()
    model.feature_extractor.eval()
    for batch in batches(train + validation):
        model(batch)
    model.subsample_embedding(ratio)
    model.eval()
    return torch.cat([model(batch).pred_score.flatten() for batch in batches(test)]).tolist()


def end_to_end(root, category, variants):
    """{variant: {"seconds", "ratio", "auroc"}}, each run once, one after the other."""
    train, validation = data.split_normals(layouts.find_samples(root, category, "train"), 0.1, 0)
    test = layouts.find_samples(root, category, "test")
    labels, rows = [sample.label for sample in test], {}
    for name, run in variants.items():
        start = time.perf_counter()
        scores = run(train, validation, test)
        seconds = time.perf_counter() - start
        rows[name] = {"seconds": seconds, "ratio": seconds / rows.get("ours", {}).get(
            "seconds", seconds), "auroc": auroc(labels, scores)}
    return rows


def search(runs):
    """Nearest of 19,456 entries for the 16,384 patches of 16 images, 152 values each."""
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(1, n, 152, generator=generator) for n in (19_456, 16_384))
    brute = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank[0].numpy())
    expected = torch.from_numpy(brute.kneighbors(queries[0].numpy())[0]).float()[:, 0]
    torch.testing.assert_close(nearest(queries, bank)[0][0].sqrt(), expected, atol=1e-3, rtol=1e-4)
    return alternate({"ours": lambda: nearest(queries, bank),
                      "matrix product": lambda: queries @ bank.mT,
                      "scikit-learn": lambda: brute.kneighbors(queries[0].numpy())}, runs)


def peak():
    """MiB of this process at most; getrusage would count those of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2 ** 10


def fit(count, position, side):
    """Fit a memory to so many images of side x side pixels and score four, one by one: seconds of
    the CPU, of which other programs take none, for each of them, and MiB at most."""
    def images(count):
        generator = torch.Generator().manual_seed(0)
        for _ in range(count):
            yield F.interpolate(torch.rand(1, 3, 32, 32, generator=generator), (side, side))
    torch.manual_seed(0)
    model, start = PatchMemory(position=position), time.process_time()
    model.fit(images(count))
    fitted = time.process_time()
    for image in images(4):
        model.anomaly_maps(image)
    return {"seconds": fitted - start, "seconds_to_score": (time.process_time() - fitted) / 4,
            "mib": peak()}


def growth(counts, side):
    """{case: {images: its row}}, each in a process of its own, for neighbours near the same place
    and anywhere; ratio: of the seconds to those of the fewest images."""
    found = {}
    for position in ("1", "free"):
        rows = found[f"fit, position {position}"] = {}
        for count in counts:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(fit, (count, position, side))
            least = next(iter(rows.values()), row)
            rows[str(count)] = row | {"ratio": row["seconds"] / least["seconds"]}
    return found


def main():
    args = arguments(__doc__, lambda add: (
        add("--data", type=Path, help="without it only search and growth"),
        add("--images", type=int, nargs="*", default=(300, 1000, 3000), help="of the growth"),
        add("--side", type=int, default=512, help="of those, in pixels")))
    results = {"search": search(args.runs)}
    report(args, "memory", results, ("scikit-learn",))
    results |= growth(args.images, args.side)
    report(args, "memory", results, ("scikit-learn",))
    for category in ("toothbrush", "transistor") if args.data else ():
        results[category] = end_to_end(args.data, category, {
            "ours": ours,
            "ours, the paper's": lambda *parts: ours(*parts, position="free",
                                                     distance="neighbours"),
            "anomalib": lambda *parts: anomalib(*parts, RATIO[category])})
        report(args, "memory", results, ("anomalib", "scikit-learn"))


if __name__ == "__main__":
    main()
