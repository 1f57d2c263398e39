"""Optimizers and learning rates."""

import math

import torch
from torch import nn

from espan.model import ESPAN
from espan.rep import FixedFilter
from espan.training.config import TrainConfig
from espan.training.muon import Muon


def rate_at(step: int, config: TrainConfig) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to nothing, or
    steps down by `gamma` at the `milestones`, shares of all steps."""
    warmup = max(config.warmup * config.steps, 1)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "step":
        return config.gamma ** sum(step >= share * config.steps for share in config.milestones)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(config.steps - warmup, 1)))


def optimizers_of(model: nn.Module, net: ESPAN, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Adam for `model`; with `muon_lr`, Muon for the kernels inside the blocks of its `net`."""
    kernels = []
    if config.muon_lr:
        factors = {m.weight for m in net.modules() if isinstance(m, FixedFilter)}
        kernels = [p for p in net.blocks.parameters() if p.ndim == 4 and p not in factors]
    inside = set(kernels)
    others = [p for p in model.parameters() if p not in inside]
    adam = torch.optim.Adam(others, lr=config.lr)
    return [adam, Muon(kernels, config.muon_lr, decay=config.muon_decay)] if kernels else [adam]
