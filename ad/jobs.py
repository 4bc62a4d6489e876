"""What infer.py scores, and with which runs."""

import json
from collections import namedtuple
from pathlib import Path

from ad import checkpoint, classify, data
from ad.cli import require

# name: in the results; folder, members: which runs, below --runs; samples: of the test split.
Job = namedtuple("Job", "name folder members samples")


def samples_to_score(root, table, args):
    """{category: test samples} of the categories asked for or, with --all, of those that have a
    run; says which have none. Of a flat folder every image must get a score."""
    found = args.merge_categories or [args.category]
    if args.all:
        everything = data.find_categories(root, table)
        found = [c for c in everything if any(Path(args.runs, c).glob("*/best.pt"))]
        require(found, f"no trained run in {args.runs} for any category of {root}; train them: "
                "python train.py --all")
        if table is not None:  # not every category has test images
            everything = sorted({c for file, c in table.items() if file.startswith("test/")})
            found = [c for c in everything if c in found]
        untrained = ", ".join(sorted(set(everything) - set(found)))
        require(table is None or not untrained, f"no trained run in {args.runs} for {untrained}, "
                "which has test images; a submission needs a score for each: train it")
        if untrained:
            print(f"not trained, not scored: {untrained}")
    samples = {c: data.find_samples(root, c, "test", table) for c in found}
    ids = {sample.id for part in samples.values() for sample in part}
    missing = ", ".join(sorted(set(args.spot_check) - ids))
    require(not missing, f"--spot-check: no test image {missing}; ids look like {min(ids)}")
    return samples


def classifier_jobs(root, category, args):
    """Classifiers of the category as detectors of what is not normal, on their own test split."""
    jobs = []
    for path in sorted(Path(args.runs, f"{category}-classes").glob("*/best.pt")):
        name = path.parent.name
        if args.members is None or name in args.members:
            config = json.loads((path.parent / "config.json").read_text())
            jobs.append(Job(f"{category}-classes/{name}", f"{category}-classes", [name],
                            classify.own_samples(root, config)))
    return jobs


def find_jobs(root, samples, args):
    """{category: samples} -> what to score with which runs: every category with its own, voting;
    --separately, with each of them and with its classifiers; --merge-categories, also with those of
    all together."""
    jobs = []
    for category, part in samples.items():
        names = [f.name for f in checkpoint.find_runs(args.runs, category, args.members)]
        jobs += [Job(f"{category}/{name}", category, [name], part) for name in names] \
            if args.separately else [Job(category, category, names, part)]
        jobs += classifier_jobs(root, category, args) if args.separately else []
    if args.merge_categories:
        folder = "+".join(samples)
        names = [f.name for f in checkpoint.find_runs(args.runs, folder, args.members)]
        jobs += [Job(f"{category}, merged", folder, names, part)
                 for category, part in samples.items()]
    return jobs
