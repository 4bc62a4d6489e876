"""The options that scripts share, in groups. Needs no torch."""

import argparse
from pathlib import Path

from ad.config import (CALIBRATIONS, DAMAGE, DISTANCES, ENCODERS, ERRORS, MODELS, PRECISIONS,
                       VALIDATION, VARIANCES, Scoring)


def add_data_arguments(parser: argparse.ArgumentParser,
                       categories: bool = True) -> argparse._ArgumentGroup:
    """--data, --runs, and which categories; --device, --window-batch. Returns the data group."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", help="folder in MVTec AD layout, or demo: a procedural set written"
                       " on first use (default: " + (
                           "$AD_DATA, else data/mvtec_ad)" if categories else "where the run "
                           "found its images)"))
    group.add_argument("--runs", default="runs", help="folder of the trained runs (default: runs)")
    if categories:
        group.add_argument("--category", help="name of the category (default: the only one)")
        group.add_argument("--all", action="store_true", help="every category, one by one")
        group.add_argument("--merge-categories", nargs="+", metavar="NAME", help="one run for "
                           "these, in <runs>/NAME+NAME; infer.py compares it with their own")
        group.add_argument("--pool", action="store_true",
                           help="one run for the images of all categories, the baseline")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                         help="where to compute (default: auto, CUDA when there is one)")
    machine.add_argument("--deterministic", action="store_true", help="only algorithms that give "
                         "the same result every time, slower on a GPU")
    machine.add_argument("--window-batch", type=int, default=16, metavar="N",
                         help="256 x 256 windows per forward pass; less needs less memory, the "
                         "scores stay (default: 16)")
    return group


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """--model, and the options of all models, unset: see options.read.model_arguments."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("--model", default="unet", metavar="NAME", help=f"{', '.join(MODELS)}; or, for images with "
        "labels, resnet (from scratch), efficientnet_lite0 or a classifier of torchvision.models "
        "(default: unet)")
    add("--width", type=int, help="unet: base channels (default: 32)")
    add("--depth", type=int, help="unet: halvings (default: 4)")
    add("--patch", type=int, metavar="PX", help="unet: side of the blocks of pixels that its first "
        "level works on (default: 4; reconstruct 1)")
    add("--objective", choices=("reconstruct", "repair"), help="unet: reproduce the image, or undo "
        "damage done to it (default: repair)")
    add("--damage", nargs="+", choices=(*DAMAGE, *VALIDATION), help="unet: what repair "
        "learns from (default: all but cutpaste, scar and texture, which are validated on)")
    add("--backbone", metavar="NAME", help="patchcore: where features come from: gradients (no "
        "weights), unet, efficientnet_lite0, or of torchvision (default: gradients)")
    add("--weights", "--encoder-weights", type=Path, metavar="FILE", help="of the backbone or the "
        "encoder; patchcore: best.pt of a run for unet (default: patchcore those of its package, "
        "vae random)")
    add("--layers", type=int, nargs="+", metavar="PX", help="patchcore: strides (default: 8 16; "
        "gradients 8)")
    add("--position", metavar="CELLS", help="patchcore: look for neighbours at most so many cells "
        "away, free: anywhere, auto: near where normal images are aligned (default: auto)")
    add("--coreset", type=float, metavar="SHARE", help="patchcore: patches kept (default: 0.1)")
    add("--distance", choices=DISTANCES, help="patchcore: to the nearest "
        "normal patch, Mahalanobis' (PaDiM), or both maps (default: both)")
    add("--encoder", choices=ENCODERS, help="vae: finds the latent distribution (default: cnn)")
    add("--pretrained", action="store_true", help="vae's encoder, classifiers: ImageNet's weights, "
        "from torchvision")
    add("--side", type=int, metavar="PX", help="classifiers: images are resized to this square "
        "(default: 224)")
    add("--freeze", action="store_true", default=None, help="classifiers: train the last "
        "layer only")
    add("--normal-class", metavar="NAME", help="classifiers: the class that is no defect (default: "
        "good)")
    add("--latent-dim", type=int, metavar="N", help="vae: size of the latent space (default: 512; "
        "for wells 256, 128 and 280)")
    add("--beta", type=float, metavar="W", help="vae: weight of the KL divergence (default: 1)")
    add("--variance", choices=VARIANCES, help="vae: of the decoder; learned: sigma-VAE, whose KL "
        "divergence weighs less the better images are reproduced (default: fixed; for wells "
        "learned)")
    add("--latent-samples", type=int, metavar="N", help="vae: draws over which a score is "
        "averaged, 0 = none, the mean latent (default: 0)")
    add("--image-height", type=int, metavar="PX", help="vae: images are resized to this (default: "
        "256; for wells 40)")
    add("--image-width", type=int, metavar="PX", help="vae: and this (default: 256; for wells 72)")


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the optimisation; what is not given gets its values of config.RECIPES."""
    group = parser.add_argument_group("optimisation")
    add = group.add_argument
    add("--epochs", type=int, help="passes over the training images (default: 200; "
        "of repair more where images are few, as many as make 5,600 steps)")
    add("--minutes", type=float, help="as many epochs as fit into this time on this machine")
    add("--batch", type=int, help="images per step (default: 8; reconstruct 32)")
    add("--lr", type=float, help="learning rate (default: 1e-3; reconstruct 1e-4)")
    add("--optimizer", choices=("adam", "adamw"), help="(default: adam)")
    add("--schedule", choices=("constant", "cosine"), help="of the learning rate; cosine is at 0 "
        "after --t-max epochs (default: cosine; reconstruct constant)")
    add("--t-max", type=int, metavar="EPOCHS", help="half a period of the cosine (default: "
        "--epochs)")
    add("--weight-decay", type=float, help="(default: 1e-5)")
    add("--long-side", type=int, nargs=2, metavar="PX", help="images are resized to a long side "
        "drawn from this range (default: 256 256; reconstruct 256 512)")
    add("--crop", type=int, metavar="PX", help="largest side of the random crops; each batch draws "
        "it from half of this to all of it, in steps of 32; 0: whole images (default: 0; "
        "reconstruct 256)")
    add("--precision", default="auto", choices=("auto", *PRECISIONS), help="of the convolutions of "
        "a step; images are judged in fp32 (default: auto, bf16 or fp16 where fast)")
    add("--augment", action=argparse.BooleanOptionalAction, help="turn, move, zoom and light "
        "images a little, and flip them where normal images allow it (default: yes; reconstruct "
        "no)")
    add("--seed", type=int, default=0, help="of the split, the weights, every draw (default: 0)")
    add("--seeds", type=int, nargs="+", metavar="N", help="train one run per seed, to vote")
    add("--val-every", type=int, metavar="EPOCHS", help="validate (default: 4, or --epochs / 50; "
        "classifiers 1)")
    add("--patience", type=int, metavar="N", help="stop after this many validations without a "
        "better pseudo-anomaly AUROC (default: 50, as a cosine is best at its end; reconstruct 10)")


def add_scoring_arguments(parser: argparse.ArgumentParser, trained: bool) -> None:
    """One option per field of Scoring, unset; `trained`: the default is that of the run."""
    group = parser.add_argument_group("scoring")

    def add(name, text, **options):
        value = {"windows": "0; reconstruct 128 256 512", "error": "fused; reconstruct both"}.get(
            name, getattr(Scoring(), name))
        group.add_argument(f"--{name.replace('_', '-')}", help=f"{text} (default"
                           f"{' as trained, normally' if trained else ''}: {value})", **options)
    add("windows", "sliding-window sides in pixels, stride half of it, 0 = the whole image",
        type=int, nargs="+", metavar="PX")
    add("window_input", "long side to which windows are resized before the model, small ones to "
        "256 at most, 0 = not at all",
        type=int, metavar="PX")
    add("error", "which error maps to use", choices=ERRORS)
    add("calibration", "what a map is compared with: one mean and std (global, or border: "
        "but for the edges), those of its position, or (auto) whichever makes held-out normal "
        "images likelier",
        choices=CALIBRATIONS)
    add("sigma", "Gaussian smoothing of the final map", type=float, metavar="PX")
    add("topk", "the score is the mean of this share of the pixels, the highest, in (0, 1]",
        type=float, metavar="SHARE")
