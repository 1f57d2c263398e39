"""Transparency: fills in the colour of transparent pixels, to avoid dark edges; resizes alpha."""

import torch
import torch.nn.functional as F
from torch import Tensor

from espan.images.resize import resize

# Less than half of the smallest 16-bit alpha, on the scale 0..1 of floats.
INVISIBLE = 2.0**-17
# Memory per pixel of a transparent image: colour and alpha in float32, twice.
BYTES = 64


def bleed(colour: Tensor, alpha: Tensor) -> Tensor:
    """Gives every fully transparent pixel of `colour` (C, H, W) the colour of its surroundings.

    alpha: (H, W), of the same dtype. All other pixels keep their colour. Push-pull: averages the
    colour, weighted by alpha, over squares that double in size, until a square is not fully
    transparent.
    """
    weight = alpha.float()
    holes = weight < INVISIBLE  # filters leave floats a little below 0
    if not holes.any() or holes.all():
        return colour
    weight = weight.masked_fill(holes, 0)[None, None]
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
    # In float32, because torch 2.11 has no `where` for uint16.
    return torch.where(holes, filled[0], colour).to(colour.dtype)


def enlarge_alpha(alpha: Tensor, out: Tensor) -> None:
    """Resizes alpha (1, H, W) into `out` by bicubic: networks add specks to flat masks."""
    first = alpha[0, 0, 0].item()
    if (alpha.float() == first).all():
        out.fill_(min(max(first, 0), 1) if alpha.is_floating_point() else first)
    else:
        resize_into(alpha, out)


def resize_into(large: Tensor, out: Tensor) -> None:
    """Resizes (C, H, W) to the size of `out`, smaller or larger, by bicubic."""
    pixels = large.permute(1, 2, 0)
    if pixels.dtype == torch.bfloat16:
        pixels = pixels.float()
    height, width = out.shape[1:]
    small = torch.from_numpy(resize(pixels.cpu().numpy(), (height, width))).permute(2, 0, 1)
    out.copy_(small.clamp(0, 1) if small.is_floating_point() else small)
