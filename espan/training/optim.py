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
    if not config.muon_lr:
        return [torch.optim.Adam(model.parameters(), lr=config.lr)]
    groups = _muon_groups(net, config.muon_lr)
    inside = {kernel for group in groups for kernel in group["params"]}
    others = [p for p in model.parameters() if p not in inside]
    adam = torch.optim.Adam(others, lr=config.lr)
    return [adam, Muon(groups, config.muon_lr, decay=config.muon_decay)] if groups else [adam]


def _muon_groups(net: ESPAN, lr: float) -> list[dict]:
    """The kernels inside the blocks, and at what rate each may change.

    A chain's links are wider than the kernel they merge to, and a step of one is multiplied by the
    others: at the full rate training diverges. Their steps have the largest singular value that
    the merged kernel's would have, and those of 1x1 links, which meet a kernel, a quarter of it.
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
    """Where one gradient is not finite, none is: with fp16 each optimizer leaves out a step by its
    own gradients, and half a step would be taken.
    """
    parameters = (p for each in optimizers for group in each.param_groups for p in group["params"])
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not all(gradient.isfinite().all() for gradient in gradients):
        for gradient in gradients:
            gradient.fill_(math.nan)


def moving_average(decay: float):
    """For `AveragedModel`: begins as a plain mean, so that the start is soon forgotten."""

    @torch.no_grad()
    def update(means: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        share = 1 - min(decay, float(count) / (float(count) + 10))
        torch._foreach_lerp_(means, values, share)

    return update
