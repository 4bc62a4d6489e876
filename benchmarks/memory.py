"""The search of a memory against scikit-learn's, and what a fit costs as the images become more.

    python benchmarks/memory.py

Against other memories from file to score: peers.py.
"""

import multiprocessing
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors
from timing import alternate, arguments, report

from ad.models.memory import PatchMemory
from ad.neighbours import nearest


def search(runs):
    """Nearest of 19,456 entries for the 16,384 patches of 16 images, 152 values each."""
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(1, n, 152, generator=generator) for n in (19_456, 16_384))
    brute = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank[0].numpy())
    expected = torch.from_numpy(brute.kneighbors(queries[0].numpy())[0]).float()[:, 0]
    torch.testing.assert_close(nearest(queries, bank)[0][0].sqrt(), expected, atol=1e-3, rtol=1e-4)
    return alternate({"ours": lambda: nearest(queries, bank),
                      "matrix product": lambda: queries @ bank.mT,
                      "scikit-learn": lambda: brute.kneighbors(queries[0].numpy())}, runs)


def peak():
    """MiB of this process at most; getrusage would count those of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2 ** 10


def fit(count, position, side):
    """Fit a memory to so many images of side x side pixels and score four, one by one: seconds of
    the CPU, of which other programs take none, for each of them, and MiB at most."""
    def images(count):
        generator = torch.Generator().manual_seed(0)
        for _ in range(count):
            yield F.interpolate(torch.rand(1, 3, 32, 32, generator=generator), (side, side))
    torch.manual_seed(0)
    model, start = PatchMemory(position=position), time.process_time()
    model.fit(images(count))
    fitted = time.process_time()
    for image in images(4):
        model.anomaly_maps(image)
    return {"seconds": fitted - start, "seconds_to_score": (time.process_time() - fitted) / 4,
            "mib": peak()}


def growth(counts, side):
    """{case: {images: its row}}, each in a process of its own, for neighbours near the same place
    and anywhere; ratio: of the seconds to those of the fewest images."""
    found = {}
    for position in ("1", "free"):
        rows = found[f"fit, position {position}"] = {}
        for count in counts:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(fit, (count, position, side))
            least = next(iter(rows.values()), row)
            rows[str(count)] = row | {"ratio": row["seconds"] / least["seconds"]}
    return found


def main():
    args = arguments(__doc__, lambda add: (
        add("--images", type=int, nargs="*", default=(300, 1000, 3000), help="of the growth"),
        add("--side", type=int, default=512, help="of those, in pixels")))
    results = {"search": search(args.runs)}
    report(args, "memory_growth", results, ("scikit-learn",))
    results |= growth(args.images, args.side)
    report(args, "memory_growth", results, ("scikit-learn",))


if __name__ == "__main__":
    main()
