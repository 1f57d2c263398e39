"""Transparency: the colour under it, so that no dark edge is drawn around a cut-out, and alpha."""

import torch
import torch.nn.functional as F
from torch import Tensor

from espan.images.resize import resize

# Less than half of the faintest alpha a 16-bit picture has, on the scale 0..1 of floats.
INVISIBLE = 2.0**-17
# That a transparent picture takes per pixel: colour and alpha in float32, twice over.
BYTES = 64


def bleed(colour: Tensor, alpha: Tensor) -> Tensor:
    """`colour` (C, H, W) with every fully transparent pixel given the colour of its surroundings.

    alpha (H, W), of the same dtype. Pixels that show at all keep their colour. Push-pull: averages
    weighted by alpha over ever larger squares, each hole filled from the smallest that has any.
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
    # Chosen in float32, as torch 2.11 has no `where` of uint16.
    return torch.where(holes, filled[0], colour).to(colour.dtype)


def enlarge_alpha(alpha: Tensor, out: Tensor) -> None:
    """Alpha (1, H, W) into `out`, by bicubic: networks draw specks into flat masks."""
    first = alpha[0, 0, 0].item()
    if (alpha.float() == first).all():
        out.fill_(min(max(first, 0), 1) if alpha.is_floating_point() else first)
    else:
        resize_into(alpha, out)


def resize_into(large: Tensor, out: Tensor) -> None:
    """Planes (C, H, W) made those of `out`, smaller or larger, by bicubic."""
    pixels = large.permute(1, 2, 0)
    if pixels.dtype == torch.bfloat16:
        pixels = pixels.float()
    height, width = out.shape[1:]
    small = torch.from_numpy(resize(pixels.cpu().numpy(), (height, width))).permute(2, 0, 1)
    out.copy_(small.clamp(0, 1) if small.is_floating_point() else small)
