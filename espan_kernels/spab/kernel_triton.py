"""spab in Triton: one conv3x3 kernel per convolution, or all of them fused in one kernel.

Fused, a program walks down a strip of the picture, a row a step. Of each convolution it holds the
two output rows that are still open; what a row finishes goes straight into the next convolution,
so nothing but the input and the output touches memory.
"""

import triton
import triton.language as tl
from torch import Tensor

from espan_kernels import layout
from espan_kernels.conv3x3.kernel_triton import add_bias, conv3x3
from espan_kernels.triton_math import dot, gate, narrow, sigmoid

# A program's strip: columns it computes, rows it stores. Each convolution loses a column at both
# sides and computes two rows more, which the strips beside and below compute again.
COLUMNS, ROWS = 64, 32


def spab(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    h = x
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h = conv3x3(h, weight, bias, "silu", None)
    return conv3x3(h, weights[-1], biases[-1], "none", x)


@triton.jit
def feed(row, w_ptr, w_stride, above, here, COLUMNS: tl.constexpr, C: tl.constexpr):
    """An input row [columns, C] into the three output rows it reaches.

    (the output row above, now finished; the row here and the row below, still open). The row's
    neighbours come by moving it a column; what comes in at the sides is junk.
    """
    o = tl.arange(0, C)
    at = w_ptr + (o * w_stride[1])[:, None] + (o * w_stride[0])[None, :]
    below = tl.zeros_like(above)
    for kx in tl.range(3):
        column = tl.arange(0, COLUMNS) + kx - 1
        column = tl.minimum(tl.maximum(column, 0), COLUMNS - 1)
        moved = tl.gather(row, tl.broadcast_to(column[:, None], (COLUMNS, C)), 0)
        tap = at + kx * w_stride[3]
        below = dot(moved, tl.load(tap), below)
        here = dot(moved, tl.load(tap + w_stride[2]), here)
        above = dot(moved, tl.load(tap + 2 * w_stride[2]), above)
    return above, here, below


@triton.jit
def hidden(acc, bias_ptr, bias_stride, inside, dtype: tl.constexpr, C: tl.constexpr):
    """SiLU of a finished row, zero outside of the picture: the padding of the next convolution."""
    acc = add_bias(acc, bias_ptr, bias_stride, C, C)
    return narrow(tl.where(inside[:, None], acc * sigmoid(acc), 0.0), dtype)


@triton.jit
def spab_kernel(
    x_ptr,  # (N, C, H, W)
    x_stride,
    w_ptrs,  # each (C, C, 3, 3)
    w_strides,
    bias_ptrs,  # each (C,)
    bias_strides,
    out_ptr,  # (N, C, H, W)
    out_stride,
    H,
    W,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
):
    CONVS: tl.constexpr = len(w_ptrs)
    USEFUL: tl.constexpr = COLUMNS - 2 * CONVS
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    strips = tl.cdiv(W, USEFUL)
    per_picture = strips * tl.cdiv(H, ROWS)
    n = (tl.program_id(0) // per_picture).to(tl.int64)
    i = tl.program_id(0) % per_picture
    top = i // strips * ROWS
    o_c = tl.arange(0, C).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    x = i % strips * USEFUL - CONVS + column
    x_64 = x.to(tl.int64)
    across = (x >= 0) & (x < W)
    useful = across & (column >= CONVS) & (column < COLUMNS - CONVS)
    zeros = tl.zeros((COLUMNS, C), tl.float32)
    above1, here1 = zeros, zeros
    above2, here2 = zeros, zeros
    above3, here3 = zeros, zeros
    x_row = x_ptr + n * x_stride[0] + (x_64 * x_stride[3])[:, None] + (o_c * x_stride[1])[None, :]
    out_row = out_ptr + n * out_stride[0] + (x_64 * out_stride[3])[:, None]
    out_row += (o_c * out_stride[1])[None, :]
    for step in tl.range(tl.minimum(ROWS, H - top) + 2 * CONVS):
        y = (top - CONVS + step).to(tl.int64)
        inside = (across & (y >= 0) & (y < H))[:, None]
        row = tl.load(x_row + y * x_stride[2], mask=inside, other=0)
        done, above1, here1 = feed(row, w_ptrs[0], w_strides[0], above1, here1, COLUMNS, C)
        for k in tl.static_range(1, CONVS):
            y -= 1
            inside = across & (y >= 0) & (y < H)
            row = hidden(done, bias_ptrs[k - 1], bias_strides[k - 1], inside, dtype, C)
            if k == 1:
                done, above2, here2 = feed(row, w_ptrs[k], w_strides[k], above2, here2, COLUMNS, C)
            else:
                done, above3, here3 = feed(row, w_ptrs[k], w_strides[k], above3, here3, COLUMNS, C)
        y -= 1
        inside = (useful & (y >= top) & (y < H))[:, None]
        residual = tl.load(x_row + y * x_stride[2], mask=inside, other=0)
        done = add_bias(done, bias_ptrs[CONVS - 1], bias_strides[CONVS - 1], C, C)
        out = narrow(gate(residual.to(tl.float32), done), dtype)
        tl.store(out_row + y * out_stride[2], out, mask=inside)


def spab_fused(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    n, channels, h, w = x.shape
    out = layout.empty(x, x.shape)
    if out.numel():
        useful = COLUMNS - 2 * len(weights)
        spab_kernel[(n * triton.cdiv(w, useful) * triton.cdiv(h, ROWS),)](
            x,
            x.stride(),
            tuple(weights),
            tuple(weight.stride() for weight in weights),
            tuple(biases),
            tuple(bias.stride() for bias in biases),
            out,
            out.stride(),
            h,
            w,
            channels,
            COLUMNS,
            ROWS,
            num_warps=4,
            num_stages=2,
        )
    return out
