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

import torch
from scipy.stats import spearmanr
from timing import parser_of
from tqdm import tqdm

from ad import checkpoint, data, layouts
from ad.config import Scoring
from ad.cutpaste import pseudo_anomalies
from ad.images import read_image, reading
from ad.judging import Examples, held_out_maps, judge
from ad.machine import choose_machine
from ad.metrics import auroc
from ad.options import given_scoring, training_from
from ad.pictures.plots import plt, save_figure
from ad.scoring import score_images
from ad.training import validation_scoring

KINDS = {"all pseudo-anomalies": ("patch", "scar", "texture"), "CutPaste patches": ("patch",),
         "texture damage": ("texture",)}


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
        with torch.no_grad():
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


def draw(axis, name, rows, rank):
    """AUROC of every kind over the epochs, beside that of the test split."""
    for kind, style in zip((*KINDS, "test"), ("C0-", "C1:", "C2--", "k-")):
        axis.plot([r["epoch"] for r in rows], [r[kind] for r in rows], style, marker=".",
                  label=kind if kind == "test" else f"{kind} ({rank[kind]:.2f})")
    axis.set(title=name, xlabel="epoch", ylabel="image AUROC")
    axis.legend(fontsize=7, loc="lower right")
    axis.grid(alpha=0.3)


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--runs", nargs="+", required=True, type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/validation.json"))
    args = parser.parse_args()
    machine, result = choose_machine(), {}
    figure, axes = plt.subplots(1, len(args.runs), figsize=(4.5 * len(args.runs), 3.4),
                                squeeze=False, sharey=True, layout="constrained")
    for axis, folder in zip(axes[0], args.runs):
        rows, fusion = history(folder, machine)
        rank = {kind: float(spearmanr([r[kind] for r in rows], [r["test"] for r in rows])[0])
                for kind in KINDS}
        result[str(folder)] = {"rows": rows, "spearman": rank, "fusion": fusion}
        print(f"\n{folder}\n       " + " ".join(f"{k:>21}" for k in (*KINDS, "test")))
        for row in rows + fusion:
            print(f"{row['error' if row in fusion else 'epoch']:>6} " + " ".join(
                f"{row[k]:>21.3f}" for k in (*KINDS, "test")))
        print("rank correlation with test: " + ", ".join(f"{k} {v:.2f}" for k, v in rank.items()))
        draw(axis, "/".join(folder.parts[-2:]), rows, rank)
    checkpoint.write_atomic(args.out, json.dumps(result, indent=1) + "\n")
    save_figure(args.out.with_suffix(".png"), figure)


if __name__ == "__main__":
    main()
