"""Does the pseudo-anomaly AUROC tell how training goes? It beside the test AUROC, over the epochs.

    python benchmarks/validation.py --runs runs/transistor/unet-seed0 runs/toothbrush/unet-seed0

Every epoch_N.pt of the runs is scored as in validation, and every error map of best.pt: on all
pseudo-anomalies (what chooses the epoch), on those of plain CutPaste alone, of texture damage
alone, and on the test split, which is read for this report only. Spearman's rank correlation with
the test AUROC; a chart.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from ad import checkpoint, data, layouts  # noqa: E402
from ad.config import Scoring  # noqa: E402
from ad.cutpaste import pseudo_anomalies  # noqa: E402
from ad.images import read_image, reading  # noqa: E402
from ad.judging import Examples, held_out_maps, judge  # noqa: E402
from ad.machine import choose_machine  # noqa: E402
from ad.metrics import auroc  # noqa: E402
from ad.options import given_scoring, training_from  # noqa: E402
from ad.scoring import score_images  # noqa: E402
from ad.training import validation_scoring  # noqa: E402

KINDS = {"all pseudo-anomalies": ("patch", "scar", "texture"), "CutPaste patches": ("patch",),
         "texture damage": ("texture",)}


def ranks(values):
    """Ranks from 0, equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def spearman(x, y):
    x, y = ranks(x), ranks(y)
    return float(np.corrcoef(x, y)[0, 1]) if x.std() and y.std() else float("nan")


def history(folder, machine):
    """Rows {"epoch" or "error", one AUROC per kind, "test"}: of a run's epoch_N.pt in order, and of
    every error map of its best.pt, alone and fused."""
    paths = sorted(folder.glob("epoch_*.pt"), key=lambda p: int(p.stem[6:]))
    config = checkpoint.load(folder / "best.pt")["config"]
    args, device = argparse.Namespace(**config["args"]), machine.device
    root, plan = Path(config["root"]), training_from(args)
    scoring = validation_scoring(Scoring(**given_scoring(args)), plan,
                                 max(map(max, config["sizes"])))

    def load(files):
        images = [data.resize_long_side(read_image(f, *reading(config)), plan.validation_side)
                  for f in files]
        return [(image[0] * 255).round().byte() for image in images], images
    normals, floats = load(root / name for name in config["validation"])
    variants = [(i, v) for i, image in enumerate(floats)
                for v in pseudo_anomalies(image, args.seed, i)]
    examples = Examples(normals, [(v[2][0] * 255).round().byte() for _, v in variants],
                        [i for i, _ in variants], [v[0] for _, v in variants])
    samples = layouts.find_samples(root, config["category"], "test")
    tests, _ = load(s.path for s in samples)

    def row(path, error):
        found = checkpoint.load(path)
        model = checkpoint.restore_model(found, path, device).eval()
        with torch.no_grad(), machine.autocast():
            one = replace(scoring, error=error)
            saved = judge(*held_out_maps([(model, range(len(normals)))], examples, one, device),
                          examples, one)
            scores = torch.cat([s for s, _ in score_images(model, tests, saved, device)]).tolist()
        result = {"epoch": found["epoch"], "error": error}
        for name, families in KINDS.items():
            part = [s for s, kind in zip(saved["positives"], saved["kinds"]) if kind in families]
            result[name] = auroc([0] * len(normals) + [1] * len(part), saved["scores"] + part)
        return result | {"test": auroc([s.label for s in samples], scores)}
    # Weights of an epoch have no memory yet: fused is without it, as in validation.
    return ([row(path, scoring.error) for path in tqdm(paths, disable=not sys.stderr.isatty())],
            [row(folder / "best.pt", e) for e in ("mse", "ssim", "mask", "places", "fused")])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="+", required=True, type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/validation.json"))
    args = parser.parse_args()
    machine, result = choose_machine(), {}
    figure, axes = plt.subplots(1, len(args.runs), figsize=(4.5 * len(args.runs), 3.4),
                                squeeze=False, sharey=True, layout="constrained")
    for axis, folder in zip(axes[0], args.runs):
        rows, fusion = history(folder, machine)
        test = [row["test"] for row in rows]
        rank = {kind: spearman([row[kind] for row in rows], test) for kind in KINDS}
        result[str(folder)] = {"rows": rows, "spearman": rank, "fusion": fusion}
        print(f"\n{folder}\n{'epoch':>6} " + " ".join(f"{k:>21}" for k in (*KINDS, "test")))
        for row in rows:
            print(f"{row['epoch']:>6} " + " ".join(f"{row[k]:>21.3f}" for k in (*KINDS, "test")))
        for row in fusion:
            print(f"{row['error']:>6} " + " ".join(f"{row[k]:>21.3f}" for k in (*KINDS, "test")))
        print("rank correlation with test: " + ", ".join(f"{k} {v:.2f}" for k, v in rank.items()))
        for kind, style in zip((*KINDS, "test"), ("C0-", "C1:", "C2--", "k-")):
            axis.plot([r["epoch"] for r in rows], [r[kind] for r in rows], style, marker=".",
                      label=kind if kind == "test" else f"{kind} ({rank[kind]:.2f})")
        axis.set(title="/".join(folder.parts[-2:]), xlabel="epoch", ylabel="image AUROC")
        axis.legend(fontsize=7, loc="lower right")
        axis.grid(alpha=0.3)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1))
    figure.savefig(args.out.with_suffix(".png"), dpi=90)


if __name__ == "__main__":
    main()
