"""The Detector: runs that score images, alone or by a vote.

    from ad.detector import Detector
    detector = Detector.load("runs/carpet/unet-seed0")
    scores, maps = detector.score(["a.png", "b.png"])    # anomalous where a score is above 1
"""

from collections import namedtuple
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import ad
from ad import checkpoint, ranks
from ad.cli import progress
from ad.config import DEFAULT_RULE, Scoring
from ad.images import load_readable, reading
from ad.machine import Machine, choose_machine
from ad.runs import moved
from ad.scoring import load_calibration, score_images
from ad.threshold import LABELLED, decide_limits, own_threshold, parse_threshold, standardise

CHUNK = 16  # images decoded at a time

# What a Detector finds out of one sample: score, 1 the threshold; raw: before it was scaled;
# map_: float32 (1, H, W); picture: the uint8 image (3, H, W) that was scored.
Scored = namedtuple("Scored", "sample score raw map_ picture")


@dataclass
class Member:
    """A run of a Detector. name: of its folder; config: its config.json; calibration: of
    judging.judge; auroc: of validation, None where there are no anomalous images; weight: in the
    vote, all add up to 1."""
    name: str
    model: torch.nn.Module
    config: dict
    calibration: dict
    auroc: float | None = None
    weight: float = 1.0

    @property
    def normal_scores(self) -> np.ndarray:
        """Raw scores (N,) of normal images."""
        return np.asarray(self.calibration["scores"])

    @property
    def scoring(self) -> Scoring:
        return Scoring(**self.calibration["scoring"])


class Detector:
    """Members that vote, and what is normal for them.

    A score is 0 for a typical normal image and 1 at the threshold, whatever the category; maps are
    in standard deviations of normal images.
    """
    threshold = 1.0

    def __init__(self, members: list[Member], machine: Machine | None = None,
                 rule: str = DEFAULT_RULE):
        """rule: of the threshold, see threshold.parse_threshold."""
        self.machine = machine or Machine(next(
            (p.device for p in members[0].model.parameters()), torch.device("cpu")))
        if len(members) > 1:
            weights = ad.sets.votes.vote_weights([m.auroc for m in members],
                                                 [len(m.normal_scores) for m in members])
            for member, weight in zip(members, weights):
                member.weight = weight
        self.members = [member for member in members if member.weight]
        self.limits = decide_limits(self.members, rule)

    @classmethod
    def load(cls, paths: str | Path | list, machine: Machine | None = None,
             rule: str = DEFAULT_RULE, scoring: dict | None = None,
             data: str | None = None) -> "Detector":
        """Run folders or checkpoints, one or several that vote, as they were trained, or with other
        values of `scoring` ({field of Scoring: value}). Raises InputError for what is none."""
        machine, scoring = machine or choose_machine(), scoring or {}
        paths = [paths] if isinstance(paths, (str, Path)) else paths
        files = [path / "best.pt" if path.is_dir() else path for path in map(Path, paths)]
        return cls([load_member(f, machine, rule, scoring, data) for f in files], machine, rule)

    @property
    def config(self) -> dict:
        """The first member's config.json."""
        return self.members[0].config

    @property
    def localises(self) -> bool:
        """Do its maps tell where? Those of a classifier do not."""
        return all(getattr(member.model, "localises", True) for member in self.members)

    @property
    def readings(self) -> list:
        """How the members' images are read, see images.reading, the first member's way first."""
        return list(dict.fromkeys(reading(member.config) for member in self.members))

    def score(self, images: str | Path | Iterable) -> tuple[np.ndarray, list]:
        """Images, one or several: paths, Pillow images, arrays uint8 (H, W) or (H, W, 3), or
        tensors (3, H, W), uint8 or float in [0, 1] -> scores (N,), and maps, arrays (H, W)."""
        one = isinstance(images, str) or not isinstance(images, Iterable) or \
            getattr(images, "ndim", 4) < 4
        images = [images] if one else list(images)
        scores, maps = [], []
        for start in range(0, len(images), CHUNK):
            part, read = images[start:start + CHUNK], ad.sets.files.as_image
            found, _, more = self.score_read(
                {way: [read(image, *way) for image in part] for way in self.readings})
            scores.extend(found)
            maps += [map_[0].numpy() for map_ in more]
        return np.array(scores), maps

    @torch.no_grad()
    def score_read(self, pictures: dict, names: list | None = None) -> tuple:
        """Scores (N,), raw scores (N,) and maps [(1, H, W), ...] of {reading: uint8 images}; maps
        have the size of the first reading's. names: of the images, for errors."""
        votes, raws, maps = [], [], []
        for member in self.members:
            parts = list(score_images(
                member.model, pictures[reading(member.config)], member.calibration,
                self.machine.device, self.machine.window_batch, names))
            raws.append(torch.cat([s for s, _ in parts]).cpu().double().numpy())
            votes.append(standardise(raws[-1], member.normal_scores))
            own = [m.cpu() for _, batch in parts for m in batch]
            maps.append(own if not maps else [
                F.interpolate(m[None], first.shape[-2:], mode="bilinear")[0]
                for m, first in zip(own, maps[0])])
        weights = [member.weight for member in self.members]
        mean = [sum(w * m for w, m in zip(weights, group)) for group in zip(*maps)]
        return (self.limits.scale(np.average(votes, axis=0, weights=weights)),
                np.average(raws, axis=0, weights=weights), mean)

    def score_samples(self, samples: list, skip: bool = False) -> Iterator[Scored]:
        """Yield a Scored for each sample; the next images are decoded meanwhile. Several processes
        share the samples in whole chunks: what is in a batch changes the last digits. skip: name
        images that cannot be read, and go on; otherwise they are an InputError."""
        ways = self.readings
        chunks = ranks.shard([samples[i:i + CHUNK] for i in range(0, len(samples), CHUNK)])

        def load(chunk):
            pictures = {}
            for way in ways:  # what one way cannot read is left out of all
                chunk, images = load_readable(chunk, *way, skip)
                pictures[way] = dict(zip(chunk, images))
            return chunk, {way: [part[s] for s in chunk] for way, part in pictures.items()}
        with ThreadPoolExecutor(1) as pool, progress(
                sum(map(len, chunks)), samples[0].category, ranks.rank() == 0) as bar:
            coming = [pool.submit(load, chunk) for chunk in chunks[:1]]
            for number, chunk in enumerate(chunks, start=1):
                read, pictures = coming.pop().result()
                coming = [pool.submit(load, following) for following in chunks[number:number + 1]]
                if read:
                    yield from map(Scored, read, *self.score_read(
                        pictures, [str(sample.path) for sample in read]), pictures[ways[0]])
                bar.update(len(chunk))

    @property
    def top_of_maps(self) -> float:
        """Where the colours of the maps end. A raw score is a mean of map values, so twice the
        threshold of each member is a scale that fits the map."""
        find = parse_threshold(DEFAULT_RULE)
        return sum(2 * m.weight * own_threshold(m.calibration, find) for m in self.members)


def load_member(path: Path, machine: Machine, rule: str, given: dict,
                data: str | None = None) -> Member:
    """A checkpoint as a Member that scores as `given` (fields of Scoring, as trained without).

    The stored calibration serves where the scoring is the trained one; otherwise the normal images
    that its config names are scored again. data: root of the images where they have been moved.
    """
    saved = checkpoint.load(path)
    model = checkpoint.restore_model(saved, path, machine.device)
    config, calibration = moved(saved["config"], data), saved["calibration"]
    trained = calibration["scoring"] if calibration else {
        name: config["args"][name] for name in asdict(Scoring())}
    scoring = Scoring(**trained | given).check(model)
    if not calibration or asdict(scoring) != calibration["scoring"] or (
            rule in LABELLED and not calibration["positives"]):
        print(f"{path}: judging by its {len(config['validation'])} validation images, since it "
              "has no calibration for this scoring and --threshold")
        calibration = ad.sets.rejudge.judge_again(model, config, scoring, rule in LABELLED, machine)
        print(f"{path}: calibration {load_calibration(calibration).describe()}")
    return Member(path.parent.name, model, config, calibration, saved["val_auroc"])
