"""Optimizers and learning rates."""

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from espan.networks.espan import ESPAN
from espan.networks.reparam import RepConv
from espan.training.config import TrainConfig
from espan.training.muon import Muon


def lr_multiplier(step: int, config: TrainConfig) -> float:
    """The learning rate relative to its peak: linear warm-up, then a half cosine down to 0, or
    steps down by `gamma` at the `milestones`, given as shares of all steps.
    """
    warmup = max(config.warmup * config.steps, 1)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "step":
        return config.gamma ** sum(step >= share * config.steps for share in config.milestones)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(config.steps - warmup, 1)))


def optimizers_of(model: nn.Module, net: ESPAN, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Adam for `model`; with `muon_lr`, Muon for the kernels in the blocks of its `net`."""
    if not config.muon_lr:
        return [torch.optim.Adam(model.parameters(), lr=config.lr)]
    groups = _muon_groups(net, config.muon_lr)
    inside = {kernel for group in groups for kernel in group["params"]}
    others = [p for p in model.parameters() if p not in inside]
    adam = torch.optim.Adam(others, lr=config.lr)
    return [adam, Muon(groups, config.muon_lr, decay=config.muon_decay)] if groups else [adam]


def _muon_groups(net: ESPAN, lr: float) -> list[dict]:
    """Parameter groups of the kernels in the blocks, with their learning rates.

    The links of a chain are wider than its merged kernel, and a step of one link is multiplied by
    the others: training diverges at the full rate. Steps of links get the largest singular value of
    a step of the merged kernel, and steps of 1x1 links next to a kernel a quarter of it.
    """
    by_share: dict[float, list[Tensor]] = defaultdict(list)
    for layer in (conv for block in net.blocks for conv in block.convs):
        if not isinstance(layer, RepConv):
            by_share[1.0].append(layer.weight)
            continue
        for chain in layer.branches:
            for kernel in (link.weight for link in chain if isinstance(link, nn.Conv2d)):
                share = 1.0
                if len(chain) > 1:
                    merged = layer.kernel**2 * layer.channels[0]
                    share = (merged / max(len(kernel), kernel[0].numel())) ** 0.5
                    share *= 1 if kernel.size(-1) > 1 else 0.25
                by_share[share].append(kernel)
    return [{"params": kernels, "lr": share * lr} for share, kernels in by_share.items()]


@torch.no_grad()
def overflow_together(optimizers: list[torch.optim.Optimizer]) -> None:
    """Sets all gradients to NaN if one is not finite.

    With fp16, each optimizer skips a step based on its own gradients only; this makes all skip.
    """
    parameters = (p for each in optimizers for group in each.param_groups for p in group["params"])
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not all(gradient.isfinite().all() for gradient in gradients):
        for gradient in gradients:
            gradient.fill_(math.nan)


def moving_average(decay: float):
    """Update for `AveragedModel`: a plain mean at first, which soon forgets the initial weights."""

    @torch.no_grad()
    def update(means: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        share = 1 - min(decay, float(count) / (float(count) + 10))
        torch._foreach_lerp_(means, values, share)

    return update
