"""Memory layouts of kernel outputs, packed weights and feature maps.

Triton kernels accept any strides; they are fastest on channels_last activations and on weights
from `pack_weight`. CUDA kernels read channels_last or NC/8HW8 feature maps, (N, C/8, H, W, 8): a
plane is a group of 8 channels. They read weights from `fragments`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PLANE = 8


def is_channels_last(x: Tensor) -> bool:
    """Whether x is channels_last and not also contiguous, as small tensors can be."""
    return (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def empty(
    like: Tensor, shape, dtype: torch.dtype | None = None, channels_last: bool | None = None
) -> Tensor:
    """Allocates a kernel's output on the device of `like`.

    channels_last=None: the memory format of `like`.
    """
    if channels_last is None:
        channels_last = len(shape) == 4 and is_channels_last(like)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        shape, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format
    )


def size(x: Tensor) -> dict[str, int]:
    """The launchers' arguments n, h and w of an (N, C, H, W) or NC/8HW8 tensor."""
    n, _, h, w = x.shape[:4]
    return {"n": n, "h": h, "w": w}


def laid_out_as(out: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The inputs 16-byte aligned, with the strides of dense `out`; copies if needed."""
    return [
        x if x.stride() == out.stride() and x.data_ptr() % 16 == 0 else empty(out, x.shape).copy_(x)
        for x in inputs
    ]


def pack_weight(weight: Tensor) -> Tensor:
    """`weight` stored in the order (kh, kw, in, out), which Triton kernels read fastest.

    Kernels multiply by one tap's (in, out) matrix at a time; packing makes its rows contiguous.

    Args:
        weight: convolution weight (out, in, kh, kw).

    Returns:
        A tensor of the same shape and values.
    """
    return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)


def padded(t: Tensor) -> Tensor:
    """A weight (C, C, 3, 3) or bias (C,), zero-padded to a multiple of 8 channels."""
    more = -len(t) % PLANE
    return F.pad(t, (0, more) if t.dim() == 1 else (0, 0, 0, 0, 0, more, 0, more))


def fragments(weight: Tensor) -> Tensor:
    """Packs (C, C, 3, 3) as mma fragments (P, 9, P, 32, 2), P = ceil(C / 8).

    Dimensions: output plane, tap, input plane, lane, and the lane's two values of the 8x8 matrix B
    of mma: output channel lane // 4, input channels 2 (lane % 4) and 2 (lane % 4) + 1.
    """
    weight = padded(weight)
    planes = len(weight) // PLANE
    by_lane = weight.reshape(planes, PLANE, planes, 4, 2, 9)
    return by_lane.permute(0, 5, 2, 1, 3, 4).reshape(planes, 9, planes, 32, 2)


def check_fp16_accumulation(op: str, enabled: bool, channels: int, layout: str) -> None:
    """Raises ValueError if the CUDA convolution does not support fp16 accumulation."""
    if enabled and (layout != "nc8hw8" or channels <= 24):
        found = f"{channels} channels in {layout}"
        raise ValueError(
            f"{op}: fp16_accumulation: expected nc8hw8 and more than 24 channels, got {found}"
        )


def matrix_fragments(matrices: Tensor) -> Tensor:
    """Packs (taps, 16 * M, 32) as B fragments of mma m16n8k16: (2, taps, M, 32, 8).

    Dimensions: warp (two warps share the outputs), tap, group of 8 outputs, lane, and the lane's 8
    values. With g = lane // 4, q = lane % 4: a lane holds output g of the 8 and inputs
    16 k + 8 j + 2 q + i at values (k, j, i) of (2, 2, 2).
    """
    taps, outputs, _ = matrices.shape
    by_lane = matrices.reshape(taps, 2, outputs // 16, 8, 2, 2, 4, 2)  # half, of 8, g, k, j, q, i
    return by_lane.permute(1, 0, 2, 3, 6, 4, 5, 7).reshape(2, taps, outputs // 16, 32, 8)


def wgmma_taps(weight: Tensor) -> Tensor:
    """Packs (out, in, 3, 3) in the wgmma kernels' shared-memory order, zero-padded: (3,
    ceil(in / 16), 2, 5, ceil(out / 8), 8, 8).

    Dimensions: kernel column; 16 input channels and their two halves; kernel rows 2, 1, 0, 2, 1, of
    which any three consecutive ones belong to the three output rows in progress; output plane; and
    a core matrix, 8 output by 8 input channels.
    """
    outputs, inputs = weight.shape[:2]
    weight = F.pad(weight, (0, 0, 0, 0, 0, -inputs % 16, 0, -outputs % 8))
    outputs, inputs = weight.shape[:2]
    parts = weight.reshape(outputs // 8, 8, inputs // 16, 2, 8, 3, 3)
    by_column = parts.permute(6, 2, 3, 5, 0, 1, 4)  # column, of 16, half, row, of 8, out, in
    return by_column[:, :, :, [2, 1, 0, 2, 1]].contiguous()


def to_nc8hw8(x: Tensor) -> Tensor:
    """(N, C, H, W) to NC/8HW8, (N, ceil(C/8), H, W, 8), contiguous; channels past C are 0."""
    n, c, h, w = x.shape
    planes = -(-c // PLANE)
    out = x.new_zeros(n, planes * PLANE, h, w) if c % PLANE else x
    if c % PLANE:
        out[:, :c] = x
    return out.reshape(n, planes, PLANE, h, w).permute(0, 1, 3, 4, 2).contiguous()


def from_nc8hw8(planes: Tensor, channels: int) -> Tensor:
    """(N, P, H, W, 8) to (N, channels, H, W), contiguous; the inverse of `to_nc8hw8`."""
    n, p, h, w, _ = planes.shape
    return planes.permute(0, 1, 4, 2, 3).reshape(n, p * PLANE, h, w)[:, :channels].contiguous()
