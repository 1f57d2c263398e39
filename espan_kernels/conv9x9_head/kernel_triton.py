"""conv9x9_head in Triton: an implicit GEMM in nine steps, one kernel row each."""

import triton
import triton.language as tl
from torch import Tensor

from espan_kernels import layout
from espan_kernels.conv3x3.kernel_triton import (
    TILE_H,
    TILE_W,
    add_bias,
    block_out,
    grid,
    needs_int64,
    offsets,
    tile,
    warps,
)
from espan_kernels.triton_math import dot, narrow


@triton.jit
def conv9x9_kernel(
    x_ptr,  # (N, 3, H, W)
    x_stride,
    w_ptr,  # (COUT, 3, 9, 9)
    w_stride,
    bias_ptr,  # (COUT,)
    bias_stride,
    out_ptr,  # (N, COUT, H, W)
    out_stride,
    H,
    W,
    COUT: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    INT64: tl.constexpr,
):
    n, y, x = tile(H, W, TILE_H, TILE_W, INT64)
    acc = tl.zeros((TILE_H * TILE_W, BLOCK_OUT), tl.float32)
    o_out = tl.arange(0, BLOCK_OUT)
    # One kernel row, 9 taps of 3 colours, fills 27 of the 32 inputs of a matrix product.
    o_in = tl.arange(0, 32)
    kx, colour = o_in // 3, o_in % 3
    xx = x[:, None] + kx[None, :] - 4
    for ky in tl.range(9):
        yy = y + ky - 4
        at = n * x_stride[0] + (yy * x_stride[2])[:, None] + xx * x_stride[3]
        b_x = tl.load(  # [pixels, 32]
            x_ptr + at + (colour.to(tl.int64) * x_stride[1])[None, :],
            mask=((yy >= 0) & (yy < H))[:, None] & (xx >= 0) & (xx < W) & (o_in < 27)[None, :],
            other=0,
        )
        if x_ptr.dtype.element_ty == tl.uint8:
            b_x = narrow(b_x.to(tl.float32) / 255, w_ptr.dtype.element_ty)
        b_w = tl.load(  # [32, BLOCK_OUT]
            w_ptr
            + ky * w_stride[2]
            + (kx * w_stride[3] + colour * w_stride[1])[:, None]
            + (o_out * w_stride[0])[None, :],
            mask=(o_in < 27)[:, None] & (o_out < COUT)[None, :],
            other=0,
        )
        acc = dot(b_x, b_w, acc)
    acc = add_bias(acc, bias_ptr, bias_stride, COUT, BLOCK_OUT)
    inside = ((y < H) & (x < W))[:, None] & (o_out < COUT)[None, :]
    out = out_ptr + offsets(out_stride, n, y, x, o_out)
    tl.store(out, narrow(acc, out_ptr.dtype.element_ty), mask=inside)


def conv9x9_head(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    n, _, h, w = x.shape
    cout = weight.shape[0]
    out = layout.empty(x, (n, cout, h, w), weight.dtype)
    if out.numel():
        conv9x9_kernel[grid(n, h, w)](
            x,
            x.stride(),
            weight,
            weight.stride(),
            bias,
            bias.stride(),
            out,
            out.stride(),
            h,
            w,
            cout,
            block_out(cout),
            TILE_H,
            TILE_W,
            needs_int64(x, out),
            num_warps=warps(weight.dtype, cout),
        )
    return out
