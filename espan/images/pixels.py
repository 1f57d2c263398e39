"""Converts pixels of any dtype to a network's input, and its output to pixels without NaN."""

import math
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espan_kernels import cpu

# The value of white. Float images are 0..1.
WHITE = {
    torch.uint8: 255,
    torch.uint16: 65535,
    torch.float16: 1,
    torch.bfloat16: 1,
    torch.float32: 1,
    torch.float64: 1,
}
# Values per strip and thread: few enough to stay in cache in float32, enough that a pass takes
# longer than starting and joining the threads.
STRIP = 1 << 17


_LITTLE_ENDIAN = sys.byteorder == "little"


def colours_of(channels: int) -> int:
    """The number of colour channels: 1 for grey or grey + alpha, 3 for RGB or RGBA."""
    return channels - 1 + channels % 2


def to_network_input(pixels: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Converts pixels (N, C, H, W), C = 1 or 3, to a network's input (N, 3, H, W) in 0..1."""
    x = pixels.to(device, torch.float32).div(WHITE[pixels.dtype]).expand(-1, 3, -1, -1)
    return x.to(dtype=dtype, memory_format=torch.channels_last)


def finite(image: Any) -> Any:
    """Copies an array or tensor of floats with NaN as 0, infinity as 1 and -infinity as 0.

    Returns anything else unchanged.
    """
    if isinstance(image, Tensor) and image.is_floating_point():
        return image.nan_to_num(0.0, 1.0, 0.0)
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        return np.nan_to_num(image, nan=0.0, posinf=1.0, neginf=0.0)
    return image


def from_network_output(y: Tensor, pixels: Tensor) -> bool:
    """Writes a network's y (N, 3, H, W) as pixels (N, C, H, W); returns False if y is not finite.

    C = 1 or 2 takes the mean of the colours; C = 2 or 4 makes the last channel opaque. For results
    on the host, as it synchronises. Overwrites `y`; after False the pixels are undefined.
    """
    # Channels last, the usual memory order of both.
    y, pixels = y.permute(0, 2, 3, 1), pixels.permute(0, 2, 3, 1)
    if y.numel() and cpu.takes_bytes(y[0], pixels[0]):
        threads = torch.get_num_threads()
        return all(cpu.to_bytes(*pair, threads) for pair in zip(y, pixels, strict=True))
    white, colours = WHITE[pixels.dtype], colours_of(pixels.shape[3])
    rows = max(1, STRIP * torch.get_num_threads() // max(1, y[:, :1].numel()))
    for strip, out in zip(y.split(rows, 1), pixels.split(rows, 1), strict=True):
        strip = strip.float()
        # A sum is fast, and not finite if any value is not.
        if not math.isfinite(strip.sum()) and not strip.isfinite().all():
            return False
        if colours == 1:
            strip = strip.mean(3, keepdim=True)
        strip.mul_(white).clamp_(0, white)
        if not out.is_floating_point():
            strip.round_()
        _write(strip, out)
    return True


def _write(strip: Tensor, out: Tensor) -> None:
    """Writes rounded values (N, h, W, C) as pixels; alpha missing in `strip` is opaque."""
    if out.shape[3] == 4 and out.dtype == torch.uint8 and out.stride(3) == 1 and _LITTLE_ENDIAN:
        # One 32-bit word per pixel: writes of bytes with a stride of four do not vectorise.
        # Integers up to 2^24 are exact in float32.
        red, green, blue = strip.unbind(3)
        words = torch.add(red, green, alpha=1 << 8).add_(blue, alpha=1 << 16).sub_(1 << 24)
        out.view(torch.int32)[..., 0].copy_(words)
        return
    colours = strip.shape[3]
    out[..., :colours].copy_(strip)
    if colours < out.shape[3]:
        out[..., colours:].fill_(WHITE[out.dtype])


def from_network_output_on_device(
    y: Tensor, channels: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns (pixels (N, channels, H, W) of a network's y, one bool: whether y is finite).

    Same as `from_network_output`, but does not synchronise, so that a CUDA graph can capture it.
    """
    finite = y.isfinite().all()
    y = y.float()
    if channels == 1:
        y = y.mean(1, keepdim=True)
    white = WHITE[dtype]
    y = y.mul(white).clamp(0, white)
    return (y if dtype.is_floating_point else y.round()).to(dtype), finite
