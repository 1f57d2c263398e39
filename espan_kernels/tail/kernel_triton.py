"""tail in Triton: a kernel for the sum of convolutions, one for the 3x3 conv and pixel shuffle.

A scratch tensor holds the sum, because the 3x3 conv needs neighbouring pixels and a zero border.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from espan_kernels import layout
from espan_kernels.conv3x3.kernel_triton import (
    TILE_H,
    TILE_W,
    accumulate,
    add_bias,
    block_in,
    block_out,
    grid,
    needs_int64,
    offsets,
    tile,
    warps,
)
from espan_kernels.triton_math import narrow


@triton.jit
def sum_kernel(
    x_ptrs,  # each (N, CINS[i], H, W)
    x_strides,
    w_ptrs,  # each (COUT, CINS[i], KERNELS[i], KERNELS[i])
    w_strides,
    bias_ptr,  # (COUT,)
    bias_stride,
    out_ptr,  # (N, COUT, H, W)
    out_stride,
    H,
    W,
    CINS: tl.constexpr,
    KERNELS: tl.constexpr,
    BLOCK_INS: tl.constexpr,
    COUT: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    INT64: tl.constexpr,
):
    n, y, x = tile(H, W, TILE_H, TILE_W, INT64)
    acc = tl.zeros((TILE_H * TILE_W, BLOCK_OUT), tl.float32)
    for i in tl.static_range(len(x_ptrs)):
        acc = accumulate(
            acc,
            x_ptrs[i],
            x_strides[i],
            w_ptrs[i],
            w_strides[i],
            n,
            y,
            x,
            H,
            W,
            CINS[i],
            COUT,
            KERNELS[i],
            BLOCK_INS[i],
            BLOCK_OUT,
        )
    acc = add_bias(acc, bias_ptr, bias_stride, COUT, BLOCK_OUT)
    o_out = tl.arange(0, BLOCK_OUT)
    inside = ((y < H) & (x < W))[:, None] & (o_out < COUT)[None, :]
    out = out_ptr + offsets(out_stride, n, y, x, o_out)
    tl.store(out, narrow(acc, out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def up_kernel(
    x_ptr,  # (N, CIN, H, W)
    x_stride,
    w_ptr,  # (3 * SCALE^2, CIN, 3, 3)
    w_stride,
    bias_ptr,  # (3 * SCALE^2,)
    bias_stride,
    out_ptr,  # (N, 3, SCALE * H, SCALE * W)
    out_stride,
    H,
    W,
    CIN: tl.constexpr,
    SCALE: tl.constexpr,
    CLAMP: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    INT64: tl.constexpr,
):
    COUT: tl.constexpr = 3 * SCALE * SCALE
    n, y, x = tile(H, W, TILE_H, TILE_W, INT64)
    acc = tl.zeros((TILE_H * TILE_W, BLOCK_OUT), tl.float32)
    acc = accumulate(
        acc, x_ptr, x_stride, w_ptr, w_stride, n, y, x, H, W, CIN, COUT, 3, BLOCK_IN, BLOCK_OUT
    )
    acc = add_bias(acc, bias_ptr, bias_stride, COUT, BLOCK_OUT)
    if CLAMP:
        acc = tl.minimum(tl.maximum(acc, 0.0), 1.0)
    if out_ptr.dtype.element_ty == tl.uint8:
        # Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, halves to even.
        acc = (acc * 255.0 + 12582912.0) - 12582912.0
    # Pixel shuffle: channel (colour, dy, dx) goes to pixel (y * SCALE + dy, x * SCALE + dx).
    o_out = tl.arange(0, BLOCK_OUT)
    o_far = o_out.to(tl.int64)
    out = offsets(out_stride, n, y * SCALE, x * SCALE, o_far // (SCALE * SCALE))
    out += (o_far // SCALE % SCALE * out_stride[2] + o_far % SCALE * out_stride[3])[None, :]
    inside = ((y < H) & (x < W))[:, None] & (o_out < COUT)[None, :]
    tl.store(out_ptr + out, narrow(acc, out_ptr.dtype.element_ty), mask=inside)


def tail(
    inputs: list[Tensor],
    weights: list[Tensor],
    bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    scale: int,
    clamp: bool,
    uint8: bool,
) -> Tensor:
    n, _, h, w = inputs[0].shape
    channels = bias.shape[0]
    dtype = torch.uint8 if uint8 else bias.dtype
    out = layout.empty(inputs[0], (n, 3, scale * h, scale * w), dtype)
    if not out.numel():
        return out
    middle = layout.empty(bias, (n, channels, h, w), channels_last=True)
    sum_kernel[grid(n, h, w)](
        tuple(inputs),
        tuple(x.stride() for x in inputs),
        tuple(weights),
        tuple(weight.stride() for weight in weights),
        bias,
        bias.stride(),
        middle,
        middle.stride(),
        h,
        w,
        tuple(x.shape[1] for x in inputs),
        tuple(weight.shape[-1] for weight in weights),
        tuple(block_in(x.shape[1]) for x in inputs),
        channels,
        block_out(channels),
        TILE_H,
        TILE_W,
        needs_int64(*inputs, middle),
        num_warps=warps(bias.dtype, channels),
    )
    up_kernel[grid(n, h, w)](
        middle,
        middle.stride(),
        up_weight,
        up_weight.stride(),
        up_bias,
        up_bias.stride(),
        out,
        out.stride(),
        h,
        w,
        channels,
        scale,
        clamp or uint8,
        block_in(channels),
        block_out(3 * scale**2),
        TILE_H,
        TILE_W,
        needs_int64(middle, out),
        num_warps=warps(bias.dtype, 3 * scale**2),
    )
    return out
