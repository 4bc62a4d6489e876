"""What is normal for a trained run by another scoring, or by a rule that its checkpoint lacks."""

from torch.nn import Module

from ad.config import Scoring
from ad.fitting import evenly, folds, learns_in_one_pass, taught_scores
from ad.images import read_image, reading
from ad.judging import Examples, held_out_maps, judge
from ad.machine import Machine
from ad.runs import run_files, run_images
from ad.validation import make_examples


def judge_again(model: Module, config: dict, scoring: Scoring, positives: bool,
                machine: Machine) -> dict:
    """`judge` for a scoring that the checkpoint has not; `positives`: with those, too."""
    seed, judged = config["args"]["seed"], run_images(config, "validation")
    names = set(config["validation"])
    others = [path for path, name in zip(run_files(config, "train"), config["train"])
              if name not in names]
    if not learns_in_one_pass(model, scoring):
        others = evenly(others)
    others = [read_image(path, *reading(config)) for path in others]
    examples = make_examples(judged, seed, run_images(config, "anomalous")) if positives else \
        Examples(judged)
    if positives:
        print(f"{config['category']}: scoring {len(examples.positives)} {examples.kinds[0]} "
              "anomalous validation images for the threshold")
    maps = judged_maps(model, others, examples, scoring, machine, seed)
    saved = judge(*maps, examples, scoring)
    return saved | {"taught": taught_scores(model, others, saved, machine)}


def judged_maps(model: Module, images: list, examples: Examples, scoring: Scoring,
                machine: Machine, seed: int) -> tuple[list, list]:
    """held_out_maps of the Examples, by what has not learned from them; images: see folds."""
    return held_out_maps(folds(model, images, examples.normals, scoring, machine.device, seed),
                         examples, scoring, machine.device, machine.window_batch)
