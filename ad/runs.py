"""Beginning a run, or taking one up again: its folder, its config.json, its model; and what an
epoch leaves in it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch

import ad
from ad import InputError, checkpoint, data, ranks
from ad.folders import root_of
from ad.images import read_image, reading
from ad.machine import Machine
from ad.metrics import standard_error
from ad.model import build_model
from ad.seed import seed_everything

LONG = 10  # minutes; what takes longer is told after the first epoch


@dataclass
class Run:
    """A run in the making. folder: its own; state: what last.pt holds but for the weights and the
    optimizer."""
    folder: Path
    state: dict

    @property
    def config(self) -> dict:
        """Its config.json."""
        return self.state["config"]

    def set_epochs(self, epochs: int) -> None:
        """Keep the number of epochs that --minutes came to, so that it is repeated exactly."""
        self.config["args"] |= {"epochs": epochs, "minutes": None}
        checkpoint.write_config(self.folder, self.config)

    def settled(self, record: dict) -> bool:
        """Is an epoch as good as the best but for chance, and later? A cosine ends at its best, and
        the highest of many AUROCs by a few normal images is the luckiest."""
        if self.config["args"]["schedule"] != "cosine" or "accuracy" in record:
            return False
        best = self.state["best"][0]
        return best - record["auroc"] <= standard_error(best, len(self.config["validation"]))

    def save(self, model: torch.nn.Module, updates: tuple, record: dict,
             begun: dict | tuple = ()) -> bool:
        """After an epoch, whose line of log.jsonl is `record`, or in the midst of one ({}), which
        has `begun`: everything needed to resume, in last.pt, and what else is due. Returns whether
        the epoch became best.pt."""
        state, better = self.state, False
        if "auroc" in record:
            # At equal figures (an easy 1.0) the lower loss decides.
            key = [record.get("accuracy", record["auroc"]), -record["val_loss"]]
            better = state["best"] is None or key > state["best"]
            state |= {"stale": 0, "best": key} if better else {"stale": state["stale"] + 1}
            better = better or self.settled(record)
        if ranks.rank():
            return better
        weights = {"model": {k: v.cpu() for k, v in model.state_dict().items()},
                   "model_args": state["model_args"], "config": state["config"],
                   "epoch": state["epoch"], "val_auroc": record.get("auroc"), "calibration": None}
        if better:
            checkpoint.save(self.folder / "best.pt", weights)
        if record and state["epoch"] % self.config["args"]["save_every"] == 0:
            checkpoint.save(self.folder / f"epoch_{state['epoch']}.pt", weights)
        if record:
            log = self.folder / "log.jsonl"
            before = log.read_text() if log.exists() else ""
            checkpoint.write_atomic(log, before + json.dumps(record) + "\n")
        checkpoint.save(self.folder / "last.pt", weights | {
            "optimizer": updates.optimizer.state_dict(), "scaler": updates.scaler.state_dict(),
            "best": state["best"], "stale": state["stale"], "begun": dict(begun)})
        return better

    def tell(self, record: dict, epochs: int, better: bool, verbose: bool) -> None:
        """After an epoch: its line, or after the first one of many a warning that they take long.
        """
        left = (epochs - record["epoch"]) * record["seconds"] / 60
        if verbose:
            figures = [f"{name} {value:.3f}" for name, value in record.items()
                       if name.startswith(("auroc", "acc", "bal"))]
            print(f"{self.folder}: epoch {record['epoch']}/{epochs}  loss {record['loss']:.4f}  "
                  f"{record['images_per_s']:.1f} images/s  {left:.1f} min left"
                  + (f"  validation: {' '.join(figures)}" if figures else "")
                  + ("  best" if better else ""), flush=True)
        elif record["epoch"] == 1 and left > LONG:
            print(f"{self.folder}: {epochs} epochs will take about {left:.0f} minutes on this "
                  "machine; --minutes N takes as many as fit, --model patchcore takes seconds",
                  flush=True)


def begin(folder: Path, config: dict, model_args: dict, machine: Machine, resume: bool = False,
          overwrite: bool = False) -> tuple[torch.nn.Module, Run]:
    """Make a run folder, or open it to resume: (model on its device, Run).

    config: what config.json gets; model_args: of model.build_model.
    """
    # Before the run's folder is made, so that weights that are not there leave none.
    seed_everything(config["args"]["seed"])
    model = build_model(**model_args)
    if hasattr(model, "load_pretrained") and not resume:
        weights = config["args"]["weights"]
        if weights or config["args"]["pretrained"]:
            model.load_pretrained(weights)
            print(f"pretrained weights from {weights or 'the internet or a package'}")
        elif model.can_be_pretrained:
            print("neither --pretrained nor --weights: everything starts random")
    fitted = hasattr(model, "fit")
    last, config = ranks.from_rank_0(lambda: open_folder(folder, config, overwrite, fitted))
    for part in ("validation", "anomalous", "test"):
        if not set(config.get(part, ())) <= set(config["train"]):
            data.report_copies(run_files(config, part), run_files(config, "train"), part)
    if resume and not last:
        print(f"nothing to resume in {folder}: begins anew")
    state = last or {"model_args": model_args, "epoch": 0, "best": None, "stale": 0}
    state["config"] = config
    model = checkpoint.restore_model(state, folder) if last else model
    return model.to(machine.device, memory_format=torch.channels_last), Run(folder, state)


def open_folder(folder: Path, config: dict, overwrite: bool,
                fitted: bool) -> tuple[dict | None, dict]:
    """Make the run folder, or check that it may be resumed: (last.pt's dict or None, config).
    fitted: of a model that learns in one pass, which has no last.pt and begins anew. Of any other
    nothing is deleted unless `overwrite`."""
    last = None
    if not overwrite and (folder / "last.pt").exists():
        last = ad.sets.resume.open_again(folder, config)
    elif not (overwrite or fitted) and any(folder.glob("*.pt")):
        raise InputError(f"{folder} has checkpoints, but no last.pt to go on from; --overwrite "
                         "deletes them and starts anew, --name NAME makes another run")
    else:
        for path in [*folder.glob("*.pt"), folder / "log.jsonl"]:
            path.unlink(missing_ok=True)
    checkpoint.write_config(folder, config)
    return last, config


def run_files(config: dict, part: str) -> list[Path]:
    """Paths of the images that a run's config names: "train", "validation", "anomalous", "test"."""
    return [Path(config["root"]) / name for name in config.get(part, [])]


def moved(config: dict, name: str | None) -> dict:
    """A run's config with the root at which its images are now: --data `name` (or AD_DATA), where
    none are left at its own, which is its "moved" then."""
    name = name or os.environ.get("AD_DATA")
    if not name or any(path.exists() for path in run_files(config, "train")):
        return config
    root = str(root_of(name).resolve())
    return config | {"root": root, "moved": config["root"]}


def run_images(config: dict, part: str, most: int | None = None) -> list[torch.Tensor]:
    """The images, the first `most` of them, that a run's config names, uint8 (3, H, W): see
    run_files. Raises InputError where they are not."""
    paths = run_files(config, part)
    if paths and not any(path.exists() for path in paths):
        raise InputError(f"{config['root']} has none of the images of this run "
                         f"({config[part][0]}, ...); say where they are with --data DIR")
    return [read_image(path, *reading(config)) for path in paths[:most]]


def check_one_origin(configs: dict) -> None:
    """Raise InputError where runs {name: config.json}, which would vote, have learned from images
    of several folders. A run whose images have been moved may have learned from any."""
    found = {}
    for name, config in configs.items():
        if "moved" not in config and any(p.exists() for p in run_files(config, "train")):
            found.setdefault(config["root"], []).append(name)
    if len(found) > 1:
        raise InputError("these runs of one category learned from images of different folders: "
                         + "; ".join(f"{', '.join(runs)} from {root}" for root, runs in
                                     found.items()) + "; name those that shall judge: --members")


def report_origin(name: str, config: dict, data_name: str | None, samples: list) -> None:
    """Say where a run was trained on other data than --data `data_name`, and which of the test
    samples are copies of images that it has learned from."""
    trained = config.get("moved", config["root"])
    if trained != str(root_of(data_name).resolve()):
        print(f"note: {name} was trained on {trained}")
    data.report_copies([sample.path for sample in samples],
                       run_files(config, "train") + run_files(config, "validation"), "test")
