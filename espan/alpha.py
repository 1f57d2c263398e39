"""Colour under transparent pixels, so that upscaling draws no dark edge around a cut-out."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bleed(colour: Tensor, alpha: Tensor) -> Tensor:
    """`colour` (C, H, W) with every fully transparent pixel given the colour of its surroundings.

    alpha (H, W), of the same dtype. Pixels that show at all keep their colour. Push-pull: averages
    weighted by alpha over ever larger squares, each hole filled from the smallest that has any.
    """
    holes = alpha.float() == 0
    if not holes.any() or holes.all():
        return colour
    weight = alpha.float()[None, None]
    total = colour.float()[None] * weight
    levels = []
    while True:
        levels.append((total, weight))
        if max(weight.shape) == 1:
            break
        pad = (0, weight.shape[3] % 2, 0, weight.shape[2] % 2)
        total, weight = (F.avg_pool2d(F.pad(each, pad), 2) for each in levels[-1])
    filled = levels[-1][0] / levels[-1][1]
    for total, weight in reversed(levels[:-1]):
        filled = filled.repeat_interleave(2, 2).repeat_interleave(2, 3)
        filled = filled[..., : weight.shape[2], : weight.shape[3]]
        filled = torch.where(weight > 0, total / weight, filled)
    if not colour.is_floating_point():
        filled = filled.round()
    return torch.where(holes, filled[0].to(colour.dtype), colour)
