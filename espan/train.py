"""Training: one visible loop. Loss and schedule stand above it."""

import copy
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from espan.atomic import whole_file
from espan.config import TrainConfig
from espan.data import Patches
from espan.errors import EspanError, InputError, OutputError
from espan.evaluate import evaluate
from espan.folding import fold
from espan.machine import pick_device
from espan.model import ESPAN
from espan.muon import Muon
from espan.start import initialise
from espan.upscaler import Upscaler
from espan.weights import PTH_ERRORS, save


class TrainingError(EspanError):
    """A run that cannot go on."""


def loss_of(sr: Tensor, hr: Tensor) -> Tensor:
    """L1."""
    return (sr - hr).abs().mean()


def rate_at(step: int, config: TrainConfig) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to nothing."""
    warmup = max(config.warmup * config.steps, 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(config.steps - warmup, 1)))


def optimizers_of(net: ESPAN, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Adam; and with `muon_lr`, Muon for the kernels inside the blocks (see docs/method.md)."""
    kernels = [p for p in net.blocks.parameters() if p.ndim == 4] if config.muon_lr else []
    inside = set(kernels)
    others = [p for p in net.parameters() if p not in inside]
    adam = torch.optim.Adam(others, lr=config.lr)
    return [adam, Muon(kernels, config.muon_lr, decay=config.muon_decay)] if kernels else [adam]


def train(config: TrainConfig) -> Path:
    """Runs, or resumes, the run of `config.out`; returns its weights, final.safetensors (folded).

    The folder gets config.json, log.jsonl, checkpoint.pt. A run stopped by SIGINT or SIGTERM saves
    and raises KeyboardInterrupt; called again it goes on to the very bits an unbroken run gives.
    """
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: not a folder to write to: {error.strerror}") from error
    device = pick_device(config.device)
    patches = Patches(config.data, config.scale, config.patch, config.batch, config.seed)

    torch.manual_seed(config.seed)
    net = ESPAN(config.channels, config.blocks, config.last_convs, config.scale, config.rep)
    initialise(net, patches.batch(config.steps)[0])  # a batch that no step will see
    net = net.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(net)
    optimizers = optimizers_of(net, config)
    step = _resume(out, config, net, average, optimizers)
    config.save(out / "config.json")

    bar = tqdm(total=config.steps, initial=step, unit="step", disable=None)
    with _stop_signals() as stopped, bar, (out / "log.jsonl").open("a") as log:
        began, first = time.monotonic(), step
        while step < config.steps:
            for optimizer, peak in zip(optimizers, (config.lr, config.muon_lr), strict=False):
                for group in optimizer.param_groups:
                    group["lr"] = peak * rate_at(step, config)
            lr, hr = (each.to(device) for each in patches.batch(step))
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                sr = net(lr.to(memory_format=torch.channels_last))
            loss = loss_of(sr.float(), hr)
            if not loss.isfinite():
                raise TrainingError(f"step {step}: the loss is {loss.item()}")
            net.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            _update_average(average, net, min(config.ema, step / (step + 10)))
            bar.update()

            if step % config.every == 0 or step == config.steps:
                row = {"step": step, "loss": loss.item(), **_validate(average, config)}
                row["steps_per_second"] = round((step - first) / (time.monotonic() - began), 2)
                log.write(json.dumps(row) + "\n")
                log.flush()
                bar.set_postfix({k: f"{v:.5g}" for k, v in row.items() if k != "step"})
            if step % config.every == 0 or step == config.steps or stopped:
                _checkpoint(out, config, net, average, optimizers, step)
            if stopped:
                raise KeyboardInterrupt
    path = out / "final.safetensors"
    save(fold(average), path)
    return path


@torch.no_grad()
def _update_average(average: ESPAN, net: ESPAN, decay: float) -> None:
    for mean, current in zip(average.parameters(), net.parameters(), strict=True):
        mean.lerp_(current, 1 - decay)


def _validate(net: ESPAN, config: TrainConfig) -> dict[str, float]:
    if config.validate is None:
        return {}
    upscaler = Upscaler(net, device=config.device, dtype="fp32")
    rows = evaluate(upscaler, config.validate, config.scale)
    return {f"{row.dataset} psnr_y": row.values["psnr_y"] for row in rows if row.name == "mean"}


def _checkpoint(out: Path, config: TrainConfig, net, average, optimizers, step: int) -> None:
    state = {
        "config": asdict(config),
        "step": step,
        "net": net.state_dict(),
        "average": average.state_dict(),
        "optimizers": [each.state_dict() for each in optimizers],
    }
    with whole_file(out / "checkpoint.pt") as temporary:
        torch.save(state, temporary)


def _resume(out: Path, config: TrainConfig, net, average, optimizers) -> int:
    path = out / "checkpoint.pt"
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except PTH_ERRORS as error:
        raise InputError(f"{path}: damaged; remove it to begin again") from error
    # What a run may change when it goes on: where it runs and what it shows, not what it computes.
    free = ("data", "out", "validate", "every", "device")
    changed = [
        k for k, v in asdict(config).items() if k not in free and state["config"].get(k) != v
    ]
    if changed:
        raise InputError(f"{path}: was made with another {', '.join(changed)}; choose another out")
    net.load_state_dict(state["net"])
    average.load_state_dict(state["average"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"]


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; a second one kills as usual."""
    received: list[int] = []

    def note(number, _frame):
        received.append(number)
        signal.signal(number, before[number])

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
