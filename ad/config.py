"""What can be chosen, and its defaults. Importing this needs neither torch nor numpy, so that
options are parsed, and wrong ones refused, at once."""

from dataclasses import dataclass

from ad import InputError

# Where the class, or the function that builds it, is: imported when it is asked for.
MODELS = {"unet": "ad.model.UNetAutoencoder", "patchcore": "ad.models.memory.PatchMemory",
          "vae": "ad.models.vae.VAE", "linear_vae": "ad.models.vae.linear_vae",
          "small_conv_vae": "ad.models.vae.small_conv_vae",
          "big_conv_vae": "ad.models.vae.big_conv_vae"}
PRECISIONS = ("fp32", "bf16", "fp16")
CALIBRATIONS = ("auto", "global", "border", "position")  # see ad.calibration
MEMORY = ("neighbours", "gaussian")  # maps of a memory, also that of a U-Net
DISTANCES = (*MEMORY, "both")  # of a memory, see ad.models.memory
ENCODERS = ("cnn", "resnet18", "vit_b_16", "linear")  # of the VAE
VARIANCES = ("fixed", "learned")  # of its decoder

DEFAULT_RULE = "quantile:0.99"  # of thresholds, see threshold.parse_threshold

DEFECT = 0.995  # quantile of the pixels of normal images above which one is outlined

# Families of damage, see ad.damage; those of VALIDATION are kept for pseudo-anomalies.
DAMAGE = ("dropout", "perlin", "patches", "stain", "warp", "misplaced", "missing")
VALIDATION = ("cutpaste", "scar", "texture")

# --error: which maps of a model that reconstructs are used, see ad.errors.
ERRORS = {"mse": ("mse",), "ssim": ("ssim",), "both": ("mse", "ssim"), "mask": ("mask",),
          "memory": ("memory",), "repaired": ("ssim", "mask"), "fused": ("ssim", "mask", "memory"),
          "elbo": ("elbo",)}


@dataclass(frozen=True)
class Scoring:
    """How maps become a score.

    windows: sides in pixels, 0 = the whole image. window_input: long side in pixels to which each
    window is resized before the model, see scoring.side_for_model, 0 = not at all. error: a key of
    ERRORS, for models that reconstruct. calibration: one of CALIBRATIONS. sigma: Gaussian smoothing
    of the final map in pixels, 0 = none. topk: share of the pixels that is averaged, in (0, 1].
    flips: names of augment.FLIPS; raw maps are the mean over all ways to flip an image by them.
    """
    windows: tuple = (128, 256, 512)
    window_input: int = 256
    error: str = "both"
    calibration: str = "auto"
    sigma: float = 4.0
    topk: float = 0.005
    flips: tuple = ()

    def __post_init__(self):
        for name in ("windows", "flips"):  # JSON has only lists
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def check(self, model: object = None) -> "Scoring":
        """Raise InputError for values that cannot be used, with this model if any; returns self."""
        maps = {"mse": True, "ssim": True, "mask": getattr(model, "repairs", False),
                "memory": hasattr(model, "memory"), "elbo": hasattr(model, "decode")}
        for name in ERRORS.get(self.error, ()) if hasattr(model, "loss") else ():
            if not maps[name]:
                raise InputError(f"--error {self.error}: this model has no map called {name}, but "
                                 + ", ".join(name for name, there in maps.items() if there))
        remembers = hasattr(model, "fit")
        if self.windows != (0,) and (remembers or "memory" in ERRORS.get(self.error, ())):
            raise InputError(("--windows" if remembers else f"--error {self.error}")
                             + ": a memory looks at whole images, which is --windows 0")
        if not 0 < self.topk <= 1:
            raise InputError(f"--topk must be in (0, 1], got {self.topk}")
        if not 0 <= self.sigma < float("inf"):
            raise InputError(f"--sigma must be a number >= 0, got {self.sigma}")
        for name, sides in (("windows", self.windows), ("window-input", (self.window_input,))):
            if not sides or any(side != 0 and side < 32 for side in sides):
                raise InputError(f"--{name} must be 0 or at least 32 pixels")
        if self.error not in ERRORS or self.calibration not in CALIBRATIONS:
            raise InputError(f"unknown --error {self.error} or --calibration {self.calibration}")
        return self


@dataclass(frozen=True)
class Choice:
    """Which categories of which data are meant. data: --data, None = its default; runs: folder of
    the runs; category: None = the only one; every: all that there are; pool: one run for all of
    them; merged: names of those that one run is for."""
    data: str | None = None
    runs: str = "runs"
    category: str | None = None
    every: bool = False
    pool: bool = False
    merged: tuple = ()


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    epochs: passes over the images; batch: images per step, of all processes together; lr,
    weight_decay: of optimizer "adam" or "adamw"; schedule: "constant" or "cosine", which is 0 after
    t_max epochs (None: all of them) and back after twice that. long_side: images are resized to one
    drawn from this range of pixels; crop: largest side in pixels of the crops, 0 = whole images.
    augment: turn, move, light, and flip by `symmetries`. val_every: epochs; patience: validations
    without a better one before it stops. seed: of every draw.
    """
    epochs: int = 200
    batch: int = 8
    lr: float = 1e-3
    optimizer: str = "adam"
    schedule: str = "cosine"
    t_max: int | None = None
    weight_decay: float = 1e-5
    long_side: tuple = (256, 256)
    crop: int = 0
    augment: bool = True
    symmetries: tuple = ()
    val_every: int = 4
    patience: int = 50
    seed: int = 0

    @property
    def validation_side(self) -> int:
        """Long side in pixels at which a network is validated: as large as in training."""
        return self.crop or self.long_side[1]


# What learning suits an objective or a model: the defaults of train.py's options. A plain start;
# the score of PLAIN is the mean error of the whole image.
START = {"schedule": "constant", "optimizer": "adam", "augment": False, "weight_decay": 1e-5,
         "long_side": (256, 256), "crop": 0, "patience": 500, "val_every": 4, "save_every": 4}
PLAIN = {"windows": (0,), "window_input": 0, "error": "mse", "calibration": "global", "sigma": 0.0,
         "topk": 1.0}
WELLS = START | PLAIN | {"batch": 512, "long_side": (72, 72), "weight_decay": 0.0,
                         "variance": "learned"}

# The first is the homework's plan, vae and those of the wells are the source reports', but for
# the wells' variance: with --variance fixed, theirs, all three are worse (REPORT.md).
RECIPES = {
    "reconstruct": START | {
        "epochs": 200, "lr": 1e-4, "batch": 32, "long_side": (256, 512), "crop": 256,
        "patience": 10},
    "repair": START | {  # epochs and what they decide: options.read.settle_epochs
        "val_every": None, "save_every": None,
        "lr": 1e-3, "batch": 8, "schedule": "cosine", "augment": True, "patch": 4,
        "patience": 50, "error": "fused", "windows": (0,)},
    "patchcore": START | {  # nothing of it is trained
        "epochs": 1, "lr": 1e-4, "batch": 32, "windows": (0,)},
    "vae": START | PLAIN | {
        "epochs": 500, "lr": 5e-4, "batch": 64, "optimizer": "adamw",
        "schedule": "cosine", "t_max": 100, "weight_decay": 0.01},
    "linear_vae": WELLS | {"epochs": 150, "lr": 1e-3},
    "small_conv_vae": WELLS | {"epochs": 200, "lr": 3e-4},
    "big_conv_vae": WELLS | {"epochs": 100, "lr": 3e-4},
    "classifier": START | PLAIN | {
        "epochs": 100, "lr": 3e-4, "batch": 32, "augment": True, "patience": 15, "val_every": 1}}
