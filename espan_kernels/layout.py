"""Memory layouts: outputs of kernels, packed weights, and the planes of the CUDA kernels.

Triton kernels read any strides; they are fastest on channels_last activations and on weights
from `pack_weight`. CUDA kernels read channels_last and planes, (N, C/8, H, W, 8), and weights
from `fragments`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PLANE = 8


def is_channels_last(x: Tensor) -> bool:
    """Channels_last and not contiguous as well, which small tensors can be."""
    return (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def empty(
    like: Tensor, shape, dtype: torch.dtype | None = None, channels_last: bool | None = None
) -> Tensor:
    """Memory for what a kernel writes, on the device of `like`.

    channels_last=None: so if `like` `is_channels_last`.
    """
    if channels_last is None:
        channels_last = len(shape) == 4 and is_channels_last(like)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        shape, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format
    )


def size(x: Tensor) -> dict[str, int]:
    """Number, height and width of images (N, C, H, W) or planes, by the launchers' names."""
    n, _, h, w = x.shape[:4]
    return {"n": n, "h": h, "w": w}


def laid_out_as(out: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The inputs with the strides of `out`, which is dense, and 16-byte aligned: copies if not."""
    return [
        x if x.stride() == out.stride() and x.data_ptr() % 16 == 0 else empty(out, x.shape).copy_(x)
        for x in inputs
    ]


def pack_weight(weight: Tensor) -> Tensor:
    """`weight` with its memory ordered (kh, kw, in, out), as the Triton kernels read it fastest.

    Kernels multiply one tap's (in, out) matrix at a time: packed, its rows are contiguous.

    Args:
        weight: of a convolution, (out, in, kh, kw).

    Returns:
        A tensor of the same shape and values.
    """
    return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)


def padded(t: Tensor) -> Tensor:
    """A weight (C, C, 3, 3) or bias (C,) with its C a multiple of 8: what is new is 0."""
    more = -len(t) % PLANE
    return F.pad(t, (0, more) if t.dim() == 1 else (0, 0, 0, 0, 0, more, 0, more))


def fragments(weight: Tensor) -> Tensor:
    """(C, C, 3, 3) as the warps of a CUDA kernel hold it: (P, 9, P, 32, 2), P = ceil(C / 8).

    A plane of 8 output channels, a tap, a plane of input, the lane, its two halves of the 8
    columns and rows of mma's B: output channel lane // 4, input channels 2 (lane % 4) and the next.
    """
    weight = padded(weight)
    planes = len(weight) // PLANE
    by_lane = weight.reshape(planes, PLANE, planes, 4, 2, 9)
    return by_lane.permute(0, 5, 2, 1, 3, 4).reshape(planes, 9, planes, 32, 2)


def check_half_sums(op: str, wanted: bool, channels: int, layout: str) -> None:
    """Raises ValueError where a CUDA convolution has no float16 sums."""
    if wanted and (layout != "planes" or channels <= 24):
        found = f"{channels} channels in {layout}"
        raise ValueError(f"{op}: half_sums: expected planes of more than 24 channels, got {found}")


def matrix_fragments(matrices: Tensor) -> Tensor:
    """(taps, 16 * M, 32) as two warps of a CUDA kernel hold B of mma m16n8k16, half of the outputs
    each: (2, taps, M, 32, 8).

    A tap's matrix multiplies 32 inputs, 8 outputs at a time; the lane; its halves. With
    g = lane // 4, q = lane % 4: output g of the 8, and inputs 16 k + 8 j + 2 q + i at halves
    (k, j, i) of (2, 2, 2).
    """
    taps, outputs, _ = matrices.shape
    by_lane = matrices.reshape(taps, 2, outputs // 16, 8, 2, 2, 4, 2)  # half, of 8, g, k, j, q, i
    return by_lane.permute(1, 0, 2, 3, 6, 4, 5, 7).reshape(2, taps, outputs // 16, 32, 8)


def wgmma_taps(weight: Tensor) -> Tensor:
    """(out, in, 3, 3) as wgmma kernels hold it in shared memory: (3, ceil(in / 16), 2, 5,
    ceil(out / 8), 8, 8). What is past the channels is 0.

    The kernel's columns; of 16 input channels the two halves; the kernel's rows 2, 1, 0, 2, 1: any
    three in a row belong to the three open rows of output; a core matrix, 8 channels out by 8 in.
    """
    outputs, inputs = weight.shape[:2]
    weight = F.pad(weight, (0, 0, 0, 0, 0, -inputs % 16, 0, -outputs % 8))
    outputs, inputs = weight.shape[:2]
    parts = weight.reshape(outputs // 8, 8, inputs // 16, 2, 8, 3, 3)
    by_column = parts.permute(6, 2, 3, 5, 0, 1, 4)  # column, of 16, half, row, of 8, out, in
    return by_column[:, :, :, [2, 1, 0, 2, 1]].contiguous()


def to_planes(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, ceil(C/8), H, W, 8) contiguous; channels past C are 0."""
    n, c, h, w = x.shape
    planes = -(-c // PLANE)
    out = x.new_zeros(n, planes * PLANE, h, w) if c % PLANE else x
    if c % PLANE:
        out[:, :c] = x
    return out.reshape(n, planes, PLANE, h, w).permute(0, 1, 3, 4, 2).contiguous()


def from_planes(planes: Tensor, channels: int) -> Tensor:
    """(N, P, H, W, 8) -> (N, channels, H, W) contiguous; the inverse of `to_planes`."""
    n, p, h, w, _ = planes.shape
    return planes.permute(0, 1, 4, 2, 3).reshape(n, p * PLANE, h, w)[:, :channels].contiguous()
