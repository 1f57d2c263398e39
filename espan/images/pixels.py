"""Pixels of any dtype to a network's numbers and back: in few passes, no NaN among them."""

import math
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espan_kernels import cpu

# The value of white. Float pictures are 0..1.
WHITE = {
    torch.uint8: 255,
    torch.uint16: 65535,
    torch.float16: 1,
    torch.bfloat16: 1,
    torch.float32: 1,
    torch.float64: 1,
}
# Values of a result that a thread turns into pixels at a time: so few that they stay in its cache
# in float32, so many that a pass takes longer than to begin it and to wait for the other threads.
BAND = 1 << 17


_LITTLE_ENDIAN = sys.byteorder == "little"


def colours_of(channels: int) -> int:
    """1 for grey with or without alpha, 3 for RGB with or without."""
    return channels - 1 + channels % 2


def to_network_input(pixels: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Pixels (N, C, H, W), C = 1 or 3, as a network takes them: (N, 3, H, W) in 0..1."""
    x = pixels.to(device, torch.float32).div(WHITE[pixels.dtype]).expand(-1, 3, -1, -1)
    return x.to(dtype=dtype, memory_format=torch.channels_last)


def finite(picture: Any) -> Any:
    """An array or tensor of floats with 0 for NaN and the nearer end of 0..1 for an infinity; the
    caller's is not changed. What holds no floats comes back as it is.
    """
    if isinstance(picture, Tensor) and picture.is_floating_point():
        return picture.nan_to_num(0.0, 1.0, 0.0)
    if isinstance(picture, np.ndarray) and picture.dtype.kind == "f":
        return np.nan_to_num(picture, nan=0.0, posinf=1.0, neginf=0.0)
    return picture


def from_network_output(y: Tensor, pixels: Tensor) -> bool:
    """Writes a network's y (N, 3, H, W) as pixels (N, C, H, W); False if y is not finite.

    C = 1 or 2 takes the mean of the colours; of 2 or 4 the last is made opaque. For results on the
    host: it waits for numbers. `y` is overwritten; after False the pixels hold nothing of use.
    """
    # By rows of pixels, as both usually lie in memory.
    y, pixels = y.permute(0, 2, 3, 1), pixels.permute(0, 2, 3, 1)
    if y.numel() and cpu.takes_bytes(y[0], pixels[0]):
        threads = torch.get_num_threads()
        return all(cpu.to_bytes(*pair, threads) for pair in zip(y, pixels, strict=True))
    white, colours = WHITE[pixels.dtype], colours_of(pixels.shape[3])
    rows = max(1, BAND * torch.get_num_threads() // max(1, y[:, :1].numel()))
    for band, out in zip(y.split(rows, 1), pixels.split(rows, 1), strict=True):
        band = band.float()
        # A sum is quick, and no number if any of its terms is none.
        if not math.isfinite(band.sum()) and not band.isfinite().all():
            return False
        if colours == 1:
            band = band.mean(3, keepdim=True)
        band.mul_(white).clamp_(0, white)
        if not out.is_floating_point():
            band.round_()
        _write(band, out)
    return True


def _write(band: Tensor, out: Tensor) -> None:
    """Rounded numbers (N, h, W, C) as pixels, the last channel of which is opaque if it is not in
    `band`."""
    if out.shape[3] == 4 and out.dtype == torch.uint8 and out.stride(3) == 1 and _LITTLE_ENDIAN:
        # A pixel as one word: four bytes apart cannot be written several at a time. Whole numbers
        # up to 2^24 are exact in float32.
        red, green, blue = band.unbind(3)
        words = torch.add(red, green, alpha=1 << 8).add_(blue, alpha=1 << 16).sub_(1 << 24)
        out.view(torch.int32)[..., 0].copy_(words)
        return
    colours = band.shape[3]
    out[..., :colours].copy_(band)
    if colours < out.shape[3]:
        out[..., colours:].fill_(WHITE[out.dtype])


def from_network_output_on_device(
    y: Tensor, channels: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(pixels (N, channels, H, W) of a network's y, whether y is finite as a tensor of one bool).

    As `from_network_output`, but it waits for nothing: work that a CUDA graph can hold.
    """
    finite = y.isfinite().all()
    y = y.float()
    if channels == 1:
        y = y.mean(1, keepdim=True)
    white = WHITE[dtype]
    y = y.mul(white).clamp(0, white)
    return (y if dtype.is_floating_point else y.round()).to(dtype), finite
