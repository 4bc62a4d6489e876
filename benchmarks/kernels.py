"""How many kernels a GPU would be sent, and how often it would be waited for; needs no GPU.

    python benchmarks/kernels.py

Runs steps and inference of the default U-Net on fake CUDA tensors, which have a shape, a dtype and
a device but no values, and counts operations that would be kernels (not views and allocations) and
waits: whatever gives values to the CPU, and copies to the GPU of what is not pinned. Writes
results/kernels.json, with which tests/test_gpu.py compares.
"""

import contextlib
from collections import Counter, defaultdict
from dataclasses import asdict
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from timing import RESULTS, record

from ad.config import Training
from ad.machine import Machine
from ad.damage import damage
from ad.model import build_model
from ad.scoring import Scoring, score_images
from ad.calibration import fit_calibration
from ad import training

OUT = RESULTS / "kernels.json"
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias",
        "_unsafe_view", "_reshape_alias", "lift_fresh", "device", "is_pinned"}
ALIKE = {"mm", "bmm", "addmm", "baddbmm", "convolution", "grid_sampler_2d"}  # of one dtype
CUDA = torch.device("cuda", 0)
MODELS = {"repair": ("unet", {"width": 4, "depth": 2, "patch": 2}),
          "reconstruct": ("unet", {"width": 4, "depth": 2, "objective": "reconstruct"}),
          "vae": ("vae", {"image_height": 32, "image_width": 48, "widths": (8, 16)}),
          "resnet18": ("vae", {"encoder": "resnet18", "image_height": 32, "image_width": 48}),
          "linear_vae": ("linear_vae", {"variance": "learned"}),
          "small_conv_vae": ("small_conv_vae", {}), "big_conv_vae": ("big_conv_vae", {}),
          "resnet": ("resnet", {"side": 32}), "mobilenet": ("mobilenet_v3_small", {"side": 64})}


class Generator(torch.Generator):
    """One of the CPU that says that it is one of a GPU."""
    device = CUDA


def pin(tensor):
    tensor.pinned = True
    return tensor


def is_fake(value):
    return isinstance(value, FakeTensor)


class Gpu(TorchDispatchMode):
    """Counts kernels and waits, by name. What has nothing to do with a GPU is done for real; what
    the GPU gives to the CPU is zeros and True."""

    def __init__(self, fake):
        super().__init__()
        self.fake, self.kernels, self.waits = fake, Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name.split("::")[1]
        target = torch.device(kwargs.get("device") or "meta").type
        if target != "cuda" and not any(map(is_fake, tree_leaves((args, kwargs)))):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        if name in ALIKE and len({t.dtype for t in given if t.is_floating_point()}) > 1:
            raise RuntimeError(f"{name} of {[t.dtype for t in given]}")  # fake tensors allow it
        if name == "_local_scalar_dense":
            self.waits[name] += 1
            return args[0].dtype == torch.bool or (0.0 if args[0].is_floating_point() else 0)
        args, kwargs = tree_map_only(
            torch.Tensor, lambda t: t if is_fake(t) else self.fake.from_tensor(t), (args, kwargs))
        if kwargs.get("generator") is not None:  # which a fake draw leaves as it is
            with unset_fake_temporarily():
                torch.rand(1, generator=kwargs["generator"])
        result = func(*args, **kwargs)
        if name not in FREE and not func.is_view:
            self.kernels[name] += 1
        if name in ("_to_copy", "copy_") and not all(map(is_fake, given)):
            later = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            if not later or not all(is_fake(t) or hasattr(t, "pinned") for t in given):
                self.waits["copy to the GPU"] += 1
        if name == "_to_copy" and target == "cpu":
            self.waits["copy to the CPU"] += not kwargs.get("non_blocking")
            with unset_fake_temporarily():
                return torch.full(result.shape, result.dtype == torch.bool, dtype=result.dtype)
        return result


class Event:
    """As torch.cuda.Event: it is waited for, unless the GPU has got other work since."""

    def __init__(self, gpu):
        self.gpu, self.since = gpu, None

    def record(self):
        self.since = self.gpu.kernels.total()

    def synchronize(self):
        self.gpu.waits["event"] += self.since == self.gpu.kernels.total()


@contextlib.contextmanager
def fake_gpu():
    """Tensors "on" CUDA are fake, of a GPU with autocast for all dtypes; gives the Gpu."""
    patches = [("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
               ("torch.cuda.is_bf16_supported", lambda *a, **k: True),
               ("torch.Tensor.pin_memory", pin),
               ("torch._subclasses.fake_tensor.FakeTensor.tolist", lambda t: t.cpu().tolist())]
    with contextlib.ExitStack() as stack:
        for target, replacement in patches:
            stack.enter_context(mock.patch(target, replacement))
        gpu = stack.enter_context(Gpu(stack.enter_context(FakeTensorMode())))
        stack.enter_context(mock.patch("torch.cuda.Event", lambda: Event(gpu)))
        yield gpu


@torch.no_grad()
def backward(loss, gradient=None):
    """As loss.backward(gradient), whose engine wants a GPU where there are its tensors."""
    order, stack, seen = [], [(loss.grad_fn, False)], set()
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack += [(node, True)] + [(n, False) for n, _ in node.next_functions if n is not None]
    gradients = defaultdict(dict)
    gradients[loss.grad_fn][0] = torch.ones_like(loss) if gradient is None else gradient
    for node in reversed(order):
        found = gradients.pop(node, {})
        if hasattr(node, "variable"):
            node.variable.grad = found[0]
            continue
        call = node.apply if isinstance(node, torch.autograd.function.BackwardCFunction) else node
        results = call(*[found.get(i) for i in range(len(node._input_metadata))])
        for (after, i), result in zip(node.next_functions,
                                      results if isinstance(results, tuple) else [results]):
            if after is not None and result is not None:
                sums, wanted = gradients[after], after._input_metadata[i]
                result = result.sum_to_size(wanted.shape).to(wanted.dtype)
                sums[i] = sums[i] + result if i in sums else result


def plan():
    """What train_epoch is told: batches of 8, with augmentation."""
    return Training(epochs=1, symmetries=("left-right",))


def train_steps(model, images, precision):
    """train_epoch on fake tensors."""
    with mock.patch("torch.Tensor.backward", backward), mock.patch.object(
            training, "seeded_generator", lambda device, *seed: Generator().manual_seed(seed[0])):
        training.train_epoch(model, (images, None), training.make_updates(
            model, plan(), Machine(CUDA, precision)), 1)


def score(model, images, calibration, scoring):
    """What infer.py does on the GPU: scores and maps of each batch."""
    saved = {"scoring": asdict(scoring), **vars(calibration)}
    return [scores for scores, _ in score_images(model, images, saved, CUDA)]


def count(function, *arguments, **named):
    """(kernels, waits) of a call on a fake GPU."""
    with fake_gpu() as gpu:
        function(*arguments, **named)
        return gpu.kernels.total(), gpu.waits.total()


def fake_model(name, **model_args):
    with torch.device("cuda"):
        return build_model(name, **model_args)


def difference(more, less, by):
    """What each of `by` steps costs: counts are of more and less of them."""
    return {"kernels": round((more[0] - less[0]) / by), "waits": (more[1] - less[1]) / by}


def images(count, size=256):
    return [torch.zeros(3, size, size, dtype=torch.uint8)] * count


def measure(number=20):
    """{case: {"kernels", "waits"}}: of the network alone and of a step, mean over `number`, for
    fp32 and bf16; of damage alone; of a batch of inference."""
    found = {}

    def network(precision):
        model, batch = fake_model("unet", patch=4), torch.empty(8, 3, 256, 256, device=CUDA)
        with Machine(CUDA, precision).autocast():
            output = model.outputs(batch)
        backward(output)

    def steps(number, precision):
        train_steps(fake_model("unet", patch=4), images(8 * number), precision)

    def damages(number):
        batch, generator = torch.empty(8, 3, 256, 256, device=CUDA), Generator().manual_seed(1)
        for _ in range(number):
            damage(batch, generator)

    @torch.no_grad()
    def inference():
        fake_model("unet", patch=4).eval().outputs(torch.empty(1, 3, 256, 256, device=CUDA))

    @torch.no_grad()
    def scoring(number):  # of images that go one by one, as their sizes differ
        scoring, names = Scoring((0,), 0, "repaired"), ("ssim@0", "mask@0")
        calibration, _ = fit_calibration(
            [{name: torch.rand(1, 1, 64, 64) for name in names} for _ in range(3)], "position", 2.0)
        shown = [torch.zeros(3, 256 + i % 2, 256, dtype=torch.uint8) for i in range(number)]
        score(fake_model("unet", patch=4).eval(), shown, calibration, scoring)
    build = count(fake_model, "unet", patch=4)
    for precision in ("fp32", "bf16"):
        found[f"network, {precision}"] = difference(count(network, precision), build, 1)
        found[f"step, {precision}"] = difference(
            count(steps, number + 2, precision), count(steps, 2, precision), number)
    found["damage"] = difference(count(damages, 40), (0, 0), 40)
    found["network, inference"] = difference(count(inference), build, 1)
    found["a batch of inference"] = difference(count(scoring, 3), count(scoring, 1), 2)
    return found


def main():
    torch.manual_seed(0)
    found = measure()
    for name, numbers in found.items():
        print(f"{name:<24}{numbers['kernels']:6} kernels {numbers['waits']:6.1f} waits")
    record(OUT, results=found)


if __name__ == "__main__":
    main()
