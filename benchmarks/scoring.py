"""How scoring choices do on pseudo-anomalies (which choose) and on the test split (which reports).

    python benchmarks/scoring.py --ckpt runs/transistor/unet-seed0/best.pt

One trained model, one pass per --window-input; every row of the table recombines the same maps.
Pseudo-anomalies: every family and size on each validation normal, at full image size.
"""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from timing import parser_of, record
from tqdm import tqdm

from ad import checkpoint, layouts, scoring as sc
from ad.config import CALIBRATIONS, ERRORS, Scoring
from ad.images import load_images, read_image, reading
from ad.judging import aurocs, judge
from ad.machine import choose_machine
from ad.metrics import auroc
from ad.validation import make_examples

WINDOWS = {"128": (128,), "256": (256,), "512": (512,), "whole": (0,), "multi": (128, 256, 512)}


def all_maps(model, images, window_input, machine):
    """Raw maps of every image, at half precision to save memory: [{name@window: (1, 1, H, W)}]."""
    scoring = Scoring(windows=(128, 256, 512, 0), window_input=window_input, error="all")
    result = []
    for image in tqdm(images, disable=not sys.stderr.isatty()):
        maps = next(sc.map_images(model, [image], scoring, machine.device))
        result.append({name: m.half() for name, m in maps.items()})
    return result


def select(maps, windows, error):
    return {name: m.float() for name, m in maps.items()
            if name.split("@")[0] in ERRORS[error] and int(name.split("@")[1]) in windows}


def figures(parts, labels, examples, scoring):
    """Pseudo-anomaly and test AUROC, and what the calibration is."""
    normals, positives, tests = ([select(m, scoring.windows, scoring.error) for m in part]
                                 for part in parts)
    saved = judge(normals, positives, examples, scoring)
    calibration = sc.load_calibration(saved)
    scores = [sc.topk_mean(sc.final_maps(m, calibration, scoring), scoring.topk).item()
              for m in tests]
    pseudo = {name.replace("auroc", "pseudo"): value for name, value in aurocs(saved).items()}
    return {"chosen": calibration.kind, "evidence": calibration.evidence, **pseudo,
            "test": auroc(labels, scores)}


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--ckpt", required=True, type=Path)
    parser.add_argument("--window-inputs", type=int, nargs="+", default=(0, 256))
    parser.add_argument("--errors", nargs="+", choices=ERRORS, default=("both",))
    parser.add_argument("--calibrations", nargs="+", choices=CALIBRATIONS,
                        default=("global", "auto"))
    parser.add_argument("--out", type=Path, default=Path("results/scoring.json"))
    args = parser.parse_args()
    machine = choose_machine()
    saved = checkpoint.load(args.ckpt)
    model = checkpoint.restore_model(saved, args.ckpt, machine.device)
    config = saved["config"]
    root = Path(config["root"])
    normals = [read_image(root / n, *reading(config)) for n in config["validation"]]
    tests = layouts.find_samples(root, config["category"], "test")
    labels = [s.label for s in tests]
    test_images = load_images(tests, *reading(config))
    examples = make_examples(normals, config["args"]["seed"])
    rows = []
    for window_input in args.window_inputs:
        parts = [all_maps(model, images, window_input, machine)
                 for images in (normals, examples.positives, test_images)]
        for (name, windows), error, kind in itertools.product(
                WINDOWS.items(), args.errors, args.calibrations):
            scoring = replace(Scoring(), error=error, windows=windows, calibration=kind)
            row = {"windows": name, "window_input": window_input, "error": error,
                   "calibration": kind} | figures(parts, labels, examples, scoring)
            rows.append(row)
            print(" ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}"
                           for k, v in row.items() if k != "evidence"), flush=True)
    record(args.out, category=config["category"], environment=config["environment"], rows=rows)
    pairs = np.array([(r["pseudo"], r["test"]) for r in rows])
    print(f"correlation of pseudo and test AUROC over the rows: {np.corrcoef(pairs.T)[0, 1]:.2f}")


if __name__ == "__main__":
    main()
