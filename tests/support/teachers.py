"""Teachers for the tests of distillation: two small networks, and a run that learns from them."""

from pathlib import Path

import torch

import espan
from espan import SPAN, SPANF
from espan.training.config import TrainConfig
from tests.support.folders import noisy
from tests.support.makers import TINY_RUN


def saved(path: Path, network, *arguments, seed: int = 0, **options) -> str:
    torch.manual_seed(seed)
    net = network(*arguments, **options)
    with torch.no_grad():  # outputs within 0..1, unaffected by clamping, and brighter than the data
        up = net.conv_2 if network is SPANF else net.upsampler
        up.weight *= 0.1
        up.bias.fill_(0.8)
    espan.save(net, path)
    return str(path)


def run_with_teachers(folder: Path) -> TrainConfig:
    noisy(folder / "data", 3, 48, 44)
    teachers = [
        saved(folder / "span.safetensors", SPAN, 12, 2, seed=1),
        saved(folder / "spanf.safetensors", SPANF, 6, 2, seed=2),
    ]
    run = {"data": str(folder / "data"), "out": str(folder / "run"), "teacher": teachers}
    return TrainConfig(**(TINY_RUN | run))


def mean_output(config: TrainConfig, lr: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        outputs = [espan.load(path)(lr).clamp(0, 1) for path in config.teacher]
    return sum(outputs) / len(outputs)
