"""Taking a run up again: train.py --resume."""

from pathlib import Path

from ad import InputError, checkpoint

# Arguments that do not change what is learned up to an epoch: --resume may change them.
MAY_CHANGE = {"all", "config", "data", "deterministic", "device", "epochs", "groups",
              "merge_categories", "minutes", "name", "names_from", "overwrite", "parallel",
              "patience", "pool", "resume", "runs", "save_every", "seeds", "val_every",
              "verbose", "white", "window_batch"}


def open_again(folder: Path, config: dict) -> dict:
    """last.pt of a run folder that is to go on with this config. log.jsonl loses the lines of
    epochs that last.pt does not have.

    Raises InputError when the run had other arguments, but for MAY_CHANGE, or other images.
    """
    last = checkpoint.load(folder / "last.pt")
    old, new = last["config"]["args"], config["args"]
    if new["minutes"]:  # by now it is known how many epochs these are
        new |= {"epochs": old["epochs"], "minutes": None}
    differ = [name for name in new if name not in MAY_CHANGE and old.get(name) != new[name]]
    if differ:
        raise InputError(f"{folder} was trained with other arguments: " + ", ".join(
            f"--{name.replace('_', '-')} {old.get(name)}" for name in differ))
    if any(last["config"][part] != config[part] for part in ("train", "validation")):
        raise InputError(f"{folder} was trained on other images than {config['root']} holds now")
    if last["epoch"] > new["epochs"]:
        print(f"{folder} has {last['epoch']} epochs already, more than --epochs {new['epochs']}")
    lines = (folder / "log.jsonl").read_text().splitlines() if last["epoch"] else []
    kept = lines[:last["epoch"]]  # one line per epoch
    checkpoint.write_atomic(folder / "log.jsonl", "".join(line + "\n" for line in kept))
    return last
