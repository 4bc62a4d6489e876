"""From images in memory to checkpoints, in epochs with validation."""

import ctypes
import math
import signal
import time
from collections import namedtuple
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F

from ad import InputError, ranks
from ad.augment import augment, draw_crops
from ad.cli import deferred, progress
from ad.config import Scoring, Training
from ad.cutpaste import seeded_generator
from ad.data import cache_on_device, divide, on_device, read_later
from ad.machine import Machine
from ad.runs import Run
from ad.seed import random_states, seed_everything, set_random_states

# How weights are changed, and where.
Updates = namedtuple("Updates", "plan machine optimizer scaler")
STEPS = 5  # timed to tell how many epochs fit into --minutes


def learning_rate(plan: Training, epochs: float) -> float:
    """After so many epochs: constant, or a cosine that is 0 at t_max (and back at 2 t_max)."""
    cosine = math.cos(math.pi * epochs / (plan.t_max or plan.epochs))
    return plan.lr * (0.5 + 0.5 * cosine if plan.schedule == "cosine" else 1)


def validation_scoring(scoring: Scoring, plan: Training, long_side: int) -> Scoring:
    """Scoring of the U-Net's validation: whole images, as large as in training, without windows or
    flips. sigma, which is that of images of this long side (pixels), is scaled with them."""
    return replace(scoring, windows=(0,), window_input=0, flips=(),
                   sigma=scoring.sigma * plan.validation_side / long_side)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, which every step needs again: on a CPU page faults of large
    tensors are a tenth of a step. Elsewhere nothing happens."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(-1, 2 ** 31 - 1)  # M_TRIM_THRESHOLD
    mallopt(-4, 0)  # M_MMAP_MAX


def require_finite(tensors: Iterable, what: str, epoch: int) -> None:
    """Raise InputError unless all tensors are finite: a run that diverged is not saved."""
    # One answer for all of them: a GPU is only waited for once.
    if not torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all():
        raise InputError(f"{what} not finite in epoch {epoch}; train anew with a lower --lr or "
                         "--precision fp32 (what was saved is from the epochs before)")


def step_losses(model: torch.nn.Module, images: list, labels: torch.Tensor | None,
                generator: torch.Generator, updates: Updates) -> tuple[dict, float]:
    """The model's losses of a batch of the cache, and this process's share of the batch."""
    plan, crops = updates.plan, draw_crops(model, images, generator, updates.plan)
    if plan.augment:
        crops = augment(crops, generator, plan.symmetries)
    with updates.machine.autocast():
        losses = model.loss(crops.contiguous(memory_format=torch.channels_last), generator,
                            *([] if labels is None else [on_device(labels, generator.device)]))
    return losses, len(ranks.shard(images)) / len(images)


def add_losses(unread: list, totals: dict, epoch: int) -> None:
    """Add losses [(names, function that reads them, images), ...] to the totals."""
    for names, read, count in unread:
        values = read()
        require_finite(torch.tensor(values[:1]), "the loss is", epoch)
        for name, value in zip(names, values):
            totals[name] = totals.get(name, 0) + value * count


def train_epoch(model: torch.nn.Module, data_set: tuple, updates: Updates, epoch: int,
                begun: dict | None = None, stop: list | tuple = ()) -> dict | None:
    """One pass over the images: {"loss", ..., "images_per_s"}, means over images.

    data_set: (uint8 images, class numbers (N,) or None). updates: of make_updates. begun: {}, or
    what the pass has done already, brought up to date at its end. As soon as `stop`, of any
    process, is not empty the pass ends after its step, and returns None.
    """
    (images, labels), (plan, _, optimizer, scaler) = data_set, updates
    begun = {} if begun is None else begun
    device, start = next(model.parameters()).device, time.perf_counter() - begun.get("seconds", 0)
    # Every epoch draws from its own seed, so one that was not begun needs no random state.
    seed_everything((plan.seed * 1_000_003 + epoch) % 2 ** 32)
    generator = seeded_generator(device, plan.seed, epoch)
    batches = divide(torch.randperm(len(images), generator=generator, device=device).tolist(),
                     plan.batch)
    done, totals, halt = begun.get("batches", 0), dict(begun.get("totals", {})), False
    unread = []  # of the step before, so that a GPU has this one's work while it is waited for
    if begun:
        set_random_states(begun["random"], generator)
    model.train()
    while done < len(batches) and not halt:
        batch = batches[done]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, epoch - 1 + done / len(batches))
        losses, share = step_losses(
            model, [images[i] for i in batch], None if labels is None else labels[batch],
            generator, updates)
        values = torch.stack([*losses.values()]).detach() * share
        read = read_later(ranks.total(F.pad(values, (0, 1), value=len(stop))))  # losses, and stop
        halt = bool(stop) if ranks.size() == 1 else read()[-1] > 0
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(losses["loss"] * share).backward()
        ranks.sum_gradients(model)
        scaler.step(optimizer)
        scaler.update()
        add_losses(unread, totals, epoch)
        unread = [(list(losses), read, len(batch))]
        done += 1
    add_losses(unread, totals, epoch)
    require_finite(model.state_dict().values(), "the weights are", epoch)  # after the last step
    begun |= {"batches": done, "totals": totals, "seconds": time.perf_counter() - start,
              "random": random_states(generator)}
    return None if halt else {k: v / len(images) for k, v in totals.items()} | {
        "images_per_s": len(images) / begun["seconds"]}


def make_updates(model: torch.nn.Module, plan: Training, machine: Machine) -> Updates:
    """Updates of a model by a plan (config.Training); the gradient scaler only scales for fp16."""
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[plan.optimizer](
        [p for p in model.parameters() if p.requires_grad], lr=plan.lr,
        weight_decay=plan.weight_decay, fused=True)
    return Updates(plan, machine, optimizer, torch.amp.GradScaler(
        machine.device.type, enabled=machine.precision == "fp16"))


def epochs_in(seconds: float, model: torch.nn.Module, data_set: tuple, check: Callable,
              plan: Training, machine: Machine) -> int:
    """How many epochs of this plan fit into so many seconds, by the time that a few steps and a
    validation take here; the model stays as it is. At least one; the end of a run, which judges
    once more, gets the time of three validations."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = data_set
    few = slice(0, STEPS * plan.batch)
    times = []
    for _ in range(2):  # the first one warms up
        start, part = time.perf_counter(), (images[few], None if labels is None else labels[few])
        train_epoch(model, part, make_updates(model, plan, machine), 1)
        times.append((time.perf_counter() - start) / len(images[few]))
    start = time.perf_counter()
    ranks.from_rank_0(check)
    checking = time.perf_counter() - start
    model.load_state_dict(before)
    each = times[-1] * len(images) + checking / plan.val_every
    left = seconds - 3 * checking - sum(times) * len(images[few])
    return ranks.from_rank_0(lambda: max(1, int(left / each)))


def run_epochs(model: torch.nn.Module, data_set: tuple, check: Callable, run: Run, plan: Training,
               machine: Machine, verbose: bool = False) -> None:
    """Train until the plan's epochs or patience; after every epoch log.jsonl, last.pt and the like.

    data_set: see train_epoch. check(): the validation's figures, among them val_loss and accuracy
    or, without it, auroc, the highest of which makes best.pt. verbose: a line for every epoch.
    """
    ranks.synchronise(model)
    keep_freed_memory()
    data_set = cache_on_device(data_set[0], machine.device), data_set[1]
    updates, state = make_updates(model, plan, machine), run.state
    if "optimizer" in state:
        updates.optimizer.load_state_dict(state["optimizer"])
        updates.scaler.load_state_dict(state["scaler"])
    bar = progress(plan.epochs, f"{run.folder}, epochs", not verbose and ranks.rank() == 0)
    for epoch in range(state["epoch"] + 1, plan.epochs + 1):
        if state["stale"] >= plan.patience:
            print(f"stopped early: {plan.patience} validations without a better one", flush=True)
            break
        begun = state.pop("begun", {})
        start = time.perf_counter() - begun.get("seconds", 0)
        with deferred() as stop:
            record = train_epoch(model, data_set, updates, epoch, begun, stop)
            if record is None:
                run.save(model, updates, {}, begun)
                print(f"{run.folder}: saved after step {begun['batches']} of epoch {epoch}",
                      flush=True)
                stop.append(signal.SIGTERM)  # it may have come to another process only
                continue  # to the end of the block, which raises Interrupted
            record = {"epoch": epoch} | record
            if epoch % plan.val_every == 0 or epoch == plan.epochs:
                record |= ranks.from_rank_0(check)
            record |= {"seconds": time.perf_counter() - start,
                       "lr": updates.optimizer.param_groups[0]["lr"]}
            state["epoch"] = epoch
            better = run.save(model, updates, record)
            run.tell(record, plan.epochs, better, verbose)
            bar.update(epoch - bar.n)
            best = f", best AUROC {state['best'][0]:.3f}" if state["best"] else ""
            bar.set_postfix_str(f"loss {record['loss']:.4f}{best}", refresh=False)
    bar.close()
