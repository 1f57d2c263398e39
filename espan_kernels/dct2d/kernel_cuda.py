"""dct_l1 in CUDA: packs the DCT matrices for the warps and launches the kernel on strips."""

from functools import cache

import torch
from torch import Tensor

from espan_kernels import layout, native
from espan_kernels.dct2d.reference import matrix

REASON = "the CUDA kernel computes only dct_l1: it multiplies in float16, which ends at 65504"
# In pixels; offsets within a strip, which is one row of blocks, fit in 31 bits.
MAX_WIDTH = 1 << 24


def fits_strip(sr: Tensor, hr: Tensor, block: int | None, with_grad: bool) -> str | None:
    """The CUDA kernel uses 31-bit offsets within a row of blocks."""
    if sr.shape[-1] > MAX_WIDTH:
        return f"the CUDA kernel takes a width of up to {MAX_WIDTH}, got {sr.shape[-1]}"
    return None


@cache
def packed(n: int, device: torch.device) -> Tensor:
    """The DCT matrix of size n and its transpose, each split by parity, as split-float16 fragments.

    Shape: (2, even and odd, steps of 16, tiles of 8, 32 lanes, 8), contiguous. The half with the
    even coefficients has ceil(n / 2) rows and columns, the odd half floor(n / 2), zero-padded to
    multiples of 16 rows and 32 columns. With g = lane // 4, q = lane % 4: a lane holds column g of
    the tile and rows 8 j + 2 q + i of the step at (part, j, i) of (2, 2, 2); part 1 is the rounding
    error of part 0 times 2^11.
    """
    full = matrix(n, torch.float64, torch.device("cpu"))
    steps, tiles = -(-n // 32), -(-n // 64) * 4
    both = full.new_zeros(2, 2, 16 * steps, 8 * tiles)
    for odd, size in enumerate((n - n // 2, n // 2)):
        both[0, odd, :size, :size] = full[odd::2, :size].T
        both[1, odd, :size, :size] = full[odd::2, :size]
    high = both.half()
    low = ((both - high) * 2048).half()
    parts = torch.stack([high, low]).view(2, 2, 2, steps, 2, 4, 2, tiles, 8)
    # Dimensions: part, matrix or transpose, odd, step, j, q, i, tile, g.
    return parts.permute(1, 2, 3, 7, 8, 5, 0, 4, 6).reshape(2, 2, steps, -1, 32, 8).to(device)


def dct_l1(sr: Tensor, hr: Tensor, block: int | None, with_grad: bool) -> tuple[Tensor, Tensor]:
    h, w = sr.shape[-2:]
    gradient = layout.empty(sr, sr.shape if with_grad else (0,), channels_last=False)
    if not sr.numel():
        return torch.full((), float("nan"), device=sr.device), gradient
    down, across = (block, block) if block else (h, w)
    size = {"strips": sr.numel() // (down * w), "h": down, "w": w, "block_w": across}
    scale = 1 / sr.numel()
    *floats, counts = native.MODULE.dct_l1_scratch(**size)
    between, partial = (layout.empty(sr, (count,), torch.float32) for count in floats)
    native.call(
        "dct_l1",
        sr,
        a=sr.contiguous(),
        b=hr.contiguous(),
        across=packed(across, sr.device),
        down=packed(down, sr.device),
        between=between,
        partial=partial,
        counts=torch.zeros(counts, dtype=torch.int32, device=sr.device),
        gradient=gradient if with_grad else None,
        **size,
        scale=scale,
        dtype=sr.dtype,
    )
    return partial.sum(dtype=torch.float64).mul(scale).float(), gradient
