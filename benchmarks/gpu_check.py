"""Is all right, and fast, on this machine's GPU? One command, one page of JSON to send back.

    python benchmarks/gpu_check.py [--out gpu.json]

Needs a CUDA GPU, a few minutes, and neither data nor a network. Every model learns and gives maps
in fp32, bf16 and fp16; damage, calibration, scoring, memories and the collapse check run; values
are compared with the CPU's; kernels and waits are counted by the profiler and by PyTorch's own
watch for waits; images/s and peak memory are measured. What fails is in the JSON, with its trace.
"""

import copy
import itertools
import json
import os
import platform
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import torch
from kernels import CUDA, MODELS, plan, score
from timing import parser_of
from torch.profiler import ProfilerActivity, profile

from ad import damage
from ad.augment import FLIPS, augment
from ad.calibration import fit_calibration
from ad.data import cache_on_device
from ad.machine import Machine
from ad.pictures.collapse import collapse_check
from ad.cutpaste import seeded_generator
from ad.models.memory import PatchMemory
from ad.model import build_model
from ad.config import Scoring
from ad.scoring import map_images, score_images
from ad.judging import calibrate
from ad.training import make_updates, train_epoch

PRECISIONS = ("fp32", "bf16", "fp16")


def pictures(count, height=256, width=256):
    """uint8 images of smooth noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 24, 24, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return list((images * 255).byte())


def floats(count, height=64, width=96, device=CUDA):
    return torch.stack(pictures(count, height, width)).to(device).float() / 255


def unet():
    torch.manual_seed(0)
    return build_model("unet", patch=4).to(CUDA, memory_format=torch.channels_last)


def machine():
    properties = torch.cuda.get_device_properties(CUDA)
    return {"gpu": properties.name, "memory_gib": round(properties.total_memory / 2 ** 30, 1),
            "torch": str(torch.__version__), "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(), "python": platform.python_version()}


def waits(function):
    """How often PyTorch sees the CPU wait for the GPU in function(), and where: {place: times}."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return dict(Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught
                        if "synchronizing" in str(w.message)))


def profiled(function):
    """Kernels, copies and waits of function(), from the profiler."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        function()
        torch.cuda.synchronize()
    names = [event.name for event in trace.events()]
    device = [e for e in trace.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    copied = [event for event in device if event.name.lower().startswith(("memcpy", "memset"))]
    return {"kernels": len(device) - len(copied), "copies": len(copied),
            "launches": sum(n.startswith(("cudaLaunchKernel", "cuLaunchKernel")) for n in names),
            "synchronisations": sum("Synchronize" in n for n in names) - 1,
            "gpu_ms": round(sum(e.time_range.elapsed_us() for e in device) / 1e3, 2)}


def learning(kind, precision):
    """Loss, backward and a step; the waits of the second one."""
    name, model_args = MODELS[kind]
    torch.manual_seed(0)
    model = build_model(name, **model_args).to(CUDA).train()
    more = [torch.arange(4, device=CUDA) % 2] if hasattr(model, "classes") else []
    images, generator = floats(4), seeded_generator(CUDA, 1)
    _, _, optimizer, scaler = make_updates(model, plan(), Machine(CUDA, precision))

    def step():
        with Machine(CUDA, precision).autocast():
            losses.update(model.loss(images, generator, *more))
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(losses["loss"]).backward()
        scaler.step(optimizer)
        scaler.update()
    losses = {}
    step()
    seen = waits(step)
    model.eval()
    names = ("mse", "ssim", "mask") if kind == "repair" else ("mse",)
    with torch.no_grad(), Machine(CUDA, precision).autocast():
        maps = model.anomaly_maps(images, names)
    if not all(torch.isfinite(v).all() for v in [losses["loss"], *maps.values()]):
        raise ValueError("not finite")
    with torch.no_grad():
        expected = copy.deepcopy(model).cpu().anomaly_maps(images.cpu(), names)
    return {"loss": losses["loss"].item(), "waits": seen, "maps_off_the_cpu_by": {
        n: (maps[n].cpu() - expected[n]).abs().max().item() for n in names}}


def damages():
    """Every family, of the GPU against the CPU: the same draws, so nearly the same pictures."""
    images, found = floats(8, 256, 256), {}
    for name in damage.FAMILIES:
        def run(images, name=name):
            return damage.apply_plan(images, [(0, 4, name), (4, 8, name)],
                                 torch.Generator().manual_seed(3))
        (result, masks), (other, other_masks) = run(images), run(images.cpu())
        difference = (result.cpu() - other).abs()
        found[name] = {"waits": waits(lambda: run(images)),
                       "pixels_off_by_0.01": (difference > 0.01).float().mean().item(),
                       "masks_differ": (masks.cpu() != other_masks).float().mean().item()}
    generator = seeded_generator(CUDA, 1)
    found["augment"] = {"waits": waits(lambda: augment(images, generator, list(FLIPS)))}
    return found


def scores():
    """Calibration and scoring with windows, on the GPU and on the CPU."""
    model, images = unet().eval(), pictures(6, 300, 260)
    scoring = Scoring(windows=(128, 256), window_input=0, error="repaired")
    twin, cpu = copy.deepcopy(model).cpu(), torch.device("cpu")
    kept = calibrate(twin, images, scoring, cpu)
    expected = torch.cat([s for s, _ in score_images(twin, images, kept, cpu)])
    saved = calibrate(model, images, scoring, CUDA)
    own = torch.cat([s for s, _ in score_images(model, images, kept, CUDA)]).cpu()
    found = {"off_the_cpu_by": (own - expected).abs().max().item(),
             "scores": [round(s, 3) for s in saved["scores"]]}
    calibration, _ = fit_calibration(list(map_images(model, images, scoring, CUDA)), "border", 2.0)
    found["waits"] = waits(lambda: score(model, images, calibration, scoring))
    return found


def memories():
    """Fit and search of memories, aligned and free, against the CPU's."""
    images, found = floats(12, 128, 128), {}
    for position in ("1", "free"):
        maps = []
        for device in (torch.device("cpu"), CUDA):
            torch.manual_seed(0)
            model = PatchMemory(position=position)
            model.fit(images.to(device).split(4))
            maps.append(model.anomaly_maps(images.to(device)))
        found[position] = {n: (maps[1][n].cpu() - m).abs().max().item()
                           for n, m in maps[0].items()}
        found[position]["waits"] = waits(lambda: model.anomaly_maps(images))
    return found


def repeats():
    """Are the weights of two equal epochs the same, with deterministic algorithms?"""
    found = {}
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            states = []
            for _ in range(2):
                model = unet()
                train_epoch(model, (pictures(16), None), make_updates(
                    model, plan(), Machine(CUDA)), 1)
                states.append(model.state_dict())
            found["deterministic" if deterministic else "default"] = max(
                (a - b).abs().max().item() for a, b in zip(*(s.values() for s in states)))
        finally:
            torch.use_deterministic_algorithms(False)
    return found


def timed(function):
    """Of a function that does with 64 images what it does: images/s, memory, kernels and waits."""
    for _ in range(2):
        function()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return {"images_per_s": round(64 / sorted(times)[2], 1),
            "peak_mib": round(torch.cuda.max_memory_allocated() / 2 ** 20),
            "of_64_images": profiled(function), "waits": waits(function)}


def speed(precision):
    """Training, the network alone, forward and backward, and inference, always in fp32."""
    model, images, epochs = unet(), pictures(64), itertools.count(1)
    kept = cache_on_device(images, CUDA)
    batch = floats(8, 256, 256).contiguous(memory_format=torch.channels_last)
    updates = make_updates(model, plan(), Machine(CUDA, precision))

    def network():
        for _ in range(8):
            with Machine(CUDA, precision).autocast():
                output = model.outputs(batch)
            model.zero_grad(set_to_none=True)
            output.backward(torch.ones_like(output))
    found = {"training": timed(lambda: train_epoch(model, (kept, None), updates,
                                                   next(epochs))), "network alone": timed(network)}
    model.eval()
    saved = calibrate(model, images[:4], Scoring((0,), 0, "repaired"), CUDA)
    return found | {"inference": timed(lambda: [s.tolist() for s, _ in score_images(
        model, images, saved, CUDA)])}


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="default: gpu.json")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: torch.cuda.is_available() is False")
        sys.exit(2)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # for deterministic algorithms
    sections = {"machine": machine, "damage": damages, "scores": scores, "memories": memories,
                "repeats": repeats,
                "collapse": lambda: collapse_check(unet().eval(), floats(4, 128, 128),
                                                   seeded_generator(CUDA, 1)),
                **{f"speed, {p}": lambda p=p: speed(p) for p in PRECISIONS},
                **{f"learning, {kind}, {p}": lambda kind=kind, p=p: learning(kind, p)
                   for kind in MODELS for p in PRECISIONS}}
    page, failed, start = {}, [], time.perf_counter()
    for name, section in sections.items():
        try:
            page[name] = section()
        except Exception:  # whatever it is belongs on the page
            page[name] = {"failed": traceback.format_exc().splitlines()[-12:]}
            failed.append(name)
        print(f"{time.perf_counter() - start:6.1f} s  {name}"
              f"{'  FAILED' if name in failed else ''}", flush=True)
        args.out.write_text(json.dumps(page | {"failed": failed}, indent=1, default=str) + "\n")
    print(f"wrote {args.out}: {len(sections) - len(failed)} of {len(sections)} sections passed")


if __name__ == "__main__":
    main()
