"""What learning suits an objective or a model: the defaults of train.py's options."""

# A plain start; the score of PLAIN is the mean error of the whole image.
START = {"schedule": "constant", "optimizer": "adam", "augment": False, "weight_decay": 1e-5,
         "long_side": (256, 256), "crop": 0, "patience": 500, "val_every": 4}
PLAIN = {"windows": (0,), "window_input": 0, "error": "mse", "calibration": "global", "sigma": 0.0,
         "topk": 1.0}
WELLS = START | PLAIN | {"batch": 512, "long_side": (72, 72), "weight_decay": 0.0,
                         "variance": "learned"}

# The first is the seed plan, lab-vae and those of the wells are the source reports', but for the
# wells' variance: with --variance fixed, theirs, all three are worse (REPORT.md).
RECIPES = {
    "reconstruct": START | {
        "epochs": 200, "lr": 1e-4, "batch": 32, "long_side": (256, 512), "crop": 256,
        "patience": 10},
    "repair": START | {
        "epochs": 200, "lr": 1e-3, "batch": 8, "schedule": "cosine", "augment": True, "patch": 4,
        "patience": 50, "error": "fused", "windows": (0,)},
    "lab-vae": START | PLAIN | {
        "model": "vae", "epochs": 500, "lr": 5e-4, "batch": 64, "optimizer": "adamw",
        "schedule": "cosine", "t_max": 100, "weight_decay": 0.01},
    "linear_vae": WELLS | {"epochs": 150, "lr": 1e-3},
    "small_conv_vae": WELLS | {"epochs": 200, "lr": 3e-4},
    "big_conv_vae": WELLS | {"epochs": 100, "lr": 3e-4},
    "classifier": START | PLAIN | {
        "epochs": 100, "lr": 3e-4, "batch": 32, "augment": True, "patience": 15, "val_every": 1}}


def recipe_name(args):
    """The recipe of parsed arguments: --recipe, or what suits --model and --objective."""
    if args.recipe:
        return args.recipe
    return {"unet": args.objective or "repair", "vae": "lab-vae", "patchcore": "reconstruct"}.get(
        args.model, args.model if args.model in RECIPES else "classifier")
