"""Runs of a category that vote: loading them, their weights, and their common scores."""

import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist

import numpy as np
import torch
import torch.nn.functional as F
from torch.profiler import record_function
from tqdm import tqdm

from ad import InputError, checkpoint, data, distributed, plots
from ad.arguments import scoring_from
from ad.cli import autocast
from ad.fitting import recalibrate
from ad.judging import standard_error
from ad.scoring import Calibration, Scoring, load_calibration, score_images, standardise
from ad.threshold import DEFECT, LABELLED, pixel_threshold, top_of_maps

CHUNK = 16  # images decoded at a time
PARTS = {"scoring", "scores", "positives", "sources", "kinds", "pixels"}  # of `judge`, beside those
MINOR = 0.1  # share of the best member's weight below which another has no vote


def vote_weights(aurocs, counts):
    """Weights of members, adding up to 1, from their pseudo-anomaly AUROC (equal if one is None),
    of so many normal images each.

    In proportion to d' = sqrt(2) * the normal quantile of the AUROC: how many standard deviations
    apart it holds normal and damaged images, which is the best weight of independent standardised
    scores. Each d' is first drawn towards their mean, the more the less its standard error leaves
    of their spread (Efron and Morris, JASA 1973). One with less than MINOR of the best one's weight
    gets none: all that it would add is noise.
    """
    if None in aurocs or len(aurocs) == 1:
        return [1 / len(aurocs)] * len(aurocs)
    counts = np.asarray(counts, dtype=float)
    # Half an image on either side: an AUROC of 1.0 only says that there were too few to tell.
    area = (np.asarray(aurocs) * counts + 0.5) / (counts + 1)
    normal = [NormalDist().inv_cdf(a) for a in area]
    d = np.sqrt(2) * np.maximum(normal, 0)
    slope = np.array([NormalDist().pdf(z) for z in normal]) / np.sqrt(2)
    error = np.array([standard_error(a, n) for a, n in zip(aurocs, counts)]) / slope
    spread = max(0.0, d.var(ddof=1) - (error ** 2).mean())
    d = d.mean() + (d - d.mean()) * spread / (spread + error ** 2)
    weights = np.where(d >= MINOR * d.max(), d, 0) if d.max() > 0 else np.ones(len(d))
    return (weights / weights.sum()).tolist()


def load_member(path, args, device):
    """A checkpoint with its model, calibrated for the scoring that `args` ask for.

    The stored calibration serves where the scoring is the trained one; otherwise the validation
    images that config.json names are scored again.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint {path}")
    saved = checkpoint.load(path)
    checkpoint.require_current(saved, path)
    model = checkpoint.restore_model(saved, path, device)
    config, calibration = saved["config"], saved["calibration"]
    fields = Scoring.__dataclass_fields__
    trained = calibration["scoring"] if calibration else {
        name: value for name, value in config["args"].items() if name in fields}
    if trained.keys() != fields.keys():
        raise InputError(f"{path} is of another version of this project: it scores by "
                         f"{', '.join(sorted(trained))}; train it again")
    scoring = scoring_from(args, trained)
    labelled = getattr(args, "threshold", None) in LABELLED
    current = calibration and vars(scoring) == calibration["scoring"] and \
        PARTS | set(Calibration.__dataclass_fields__) == set(calibration)
    if not current or labelled and not calibration["positives"]:
        print(f"{path}: judging by its {len(config['validation'])} validation images, since it has "
              f"{'none of this scoring' if calibration else 'no calibration'}")
        calibration = recalibrate(model, config, scoring, labelled, args, device)
        print(f"{path}: calibration {load_calibration(calibration).describe()}")
    return {"name": path.parent.name, "model": model, "config": config, "calibration": calibration,
            "normal": np.asarray(calibration["scores"]), "val_auroc": saved["val_auroc"]}


def load_members(category, names, args, device):
    """Of the category's runs with these names (None: all) those that vote, with their weights;
    prints them where there are several."""
    folders = checkpoint.find_runs(args.runs, category, names)
    members = [load_member(folder / args.ckpt, args, device) for folder in folders]
    weights = vote_weights([m["val_auroc"] for m in members], [len(m["normal"]) for m in members])
    for member, weight in zip(members, weights):
        member["weight"] = weight
        if len(members) > 1:
            print(f"{category}/{member['name']}: weight {weight:.3f} in the vote, for its "
                  f"validation AUROC of {member['val_auroc'] or float('nan'):.3f}")
    return [member for member in members if member["weight"]]


def chunked(samples):
    return [samples[i:i + CHUNK] for i in range(0, len(samples), CHUNK)]


def image_sizes(members):
    """The sizes to which the members' images are shrunk, the first member's first."""
    return list(dict.fromkeys(member["config"]["image_size"] for member in members))


def decoded(chunks, sizes):
    """Yield (chunk, {size: its images}) of lists of samples; the next is decoded meanwhile."""
    def load(chunk):
        return {size: data.load_images(chunk, size) for size in sizes}
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(load, chunk) for chunk in chunks[:1]]
        for number, chunk in enumerate(chunks, start=1):
            with record_function("decode"):
                pictures = coming.pop().result()
            coming = [pool.submit(load, following) for following in chunks[number:number + 1]]
            yield chunk, pictures


def score_chunk(members, samples, pictures, args, device):
    """Weighted means of the members: scores (2, N) and maps [(1, H, W), ...] of a few samples.

    The first row of scores is standardised on each member's own validation normals, so that
    categories compare; the second is raw. Maps take the first member's size. pictures: {size of
    the images of a member: uint8 images}.
    """
    scores, maps = [], []
    names = [str(sample.path) for sample in samples]
    for member in members:
        with autocast(device, args.precision):
            parts = list(score_images(member["model"], pictures[member["config"]["image_size"]],
                                      member["calibration"], device, args.window_batch, names))
        raw = torch.cat([s for s, _ in parts]).cpu().double().numpy()
        scores.append((standardise(raw, member["normal"]), raw))
        own = [m.cpu() for _, batch in parts for m in batch]
        maps.append(own if not maps else [
            F.interpolate(m[None], first.shape[-2:], mode="bilinear")[0]
            for m, first in zip(own, maps[0])])
    weights = [member["weight"] for member in members]
    mean = [sum(w * m for w, m in zip(weights, group)) for group in zip(*maps)]
    return np.average(scores, axis=0, weights=weights), mean


def localise(members):
    """Do their maps tell where? Those of a classifier do not."""
    return all(getattr(member["model"], "localises", True) for member in members)


def score_samples(members, samples, args, device, threshold=float("inf")):
    """Score samples chunk by chunk: scores (2, N), see score_chunk, maps and masks for pixel
    metrics, and {id: (caption, [picture, its overlay])} of --spot-check.

    Heat maps, whose verdict is by the threshold, go to disk on the way. Maps are kept for normal
    images and those with a mask where there is a mask at all; without any, memory does not grow
    with the number of images.
    """
    scores, maps, masks, shown = [], [], [], {}
    cut = pixel_threshold(members, args.masks or DEFECT) if (
        args.maps or args.masks) and localise(members) else None
    high = top_of_maps(members)
    # Several processes share whole chunks: what is in a batch changes the last digits.
    chunks, sizes = distributed.own(chunked(samples)), image_sizes(members)
    any_mask = any(sample.mask for sample in samples)
    for chunk, pictures in tqdm(decoded(chunks, sizes), desc=samples[0].category, leave=False,
                                total=len(chunks),
                                disable=distributed.rank() > 0 or not sys.stderr.isatty()):
        part, chunk_maps = score_chunk(members, chunk, pictures, args, device)
        scores.append(part)
        for sample, score, map_, picture in zip(chunk, part[0], chunk_maps, pictures[sizes[0]]):
            picture = plots.to_picture(picture)
            if args.maps:
                path = args.results / "maps" / sample.category / f"{sample.id}.png"
                with record_function("write"):
                    photo = plots.to_picture(data.read_image(sample.path, plots.LONGEST))
                    plots.save_heat(path, photo, map_, (high, cut),
                                    f"{sample.id}\n{plots.caption(score, threshold)}")
            if sample.id in args.spot_check:
                shown[sample.id] = (plots.caption(score, threshold),
                                    [picture, plots.overlay(picture, map_, high)])
            truth = np.zeros(map_.shape[1:], bool) if sample.label == 0 else None
            if sample.mask:
                truth = data.read_mask(sample.mask, *map_.shape[1:])[0].numpy()
            if any_mask and truth is not None:
                maps.append(map_[0].numpy())
                masks.append(truth)
            if args.masks and cut is not None:
                plots.save_masks(args.results / "masks" / sample.category / f"{sample.id}.png",
                                 picture, (map_[0] > cut).numpy(), truth)
    scores, maps, masks, shown = map(distributed.gather, (scores, maps, masks, [*shown.items()]))
    return np.concatenate(scores, axis=1), maps, masks, dict(shown)
