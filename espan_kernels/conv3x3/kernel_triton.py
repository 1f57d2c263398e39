"""conv3x3 in Triton: an implicit GEMM, one tile of pixels per program.

For each of the nine taps, acc[pixels, out] += x[shifted pixels, in] @ weight[in, out]. No im2col
matrix is stored: the nine shifted reads of a tile hit in the L1 cache.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from espan_kernels import layout, tune
from espan_kernels.triton_math import dot, gate, narrow, sigmoid

EPILOGUES = {"none": 0, "silu": 1, "gate": 2}
TILE_H, TILE_W = 8, 16


@triton.jit
def tile(H, W, TILE_H: tl.constexpr, TILE_W: tl.constexpr, INT64: tl.constexpr):
    """This program's image n and the (y, x) of its TILE_H * TILE_W pixels; x int64 with INT64."""
    across = tl.cdiv(W, TILE_W)
    per_image = across * tl.cdiv(H, TILE_H)
    n = tl.program_id(0) // per_image
    i = tl.program_id(0) % per_image
    o = tl.arange(0, TILE_H * TILE_W)
    y = i // across * TILE_H + o // TILE_W
    x = i % across * TILE_W + o % TILE_W
    if INT64:
        x = x.to(tl.int64)
    return n.to(tl.int64), y.to(tl.int64), x


@triton.jit
def offsets(stride, n, y, x, o_c):
    """Offsets [pixels, channels] into an (N, C, H, W) tensor with strides `stride`."""
    o_c = o_c.to(tl.int64) * stride[1]
    return n * stride[0] + (y * stride[2] + x * stride[3])[:, None] + o_c[None, :]


@triton.jit
def accumulate(
    acc,  # [pixels, BLOCK_OUT] float32
    x_ptr,  # (N, CIN, H, W)
    x_stride,
    w_ptr,  # (COUT, CIN, KERNEL, KERNEL)
    w_stride,
    n,
    y,  # [pixels]
    x,  # [pixels]
    H,
    W,
    CIN: tl.constexpr,
    COUT: tl.constexpr,
    KERNEL: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """acc + the zero-padded KERNEL x KERNEL convolution of image n at pixels (y, x)."""
    CHUNKS: tl.constexpr = (CIN + BLOCK_IN - 1) // BLOCK_IN
    o_out = tl.arange(0, BLOCK_OUT)
    for step in tl.range(KERNEL * KERNEL * CHUNKS):
        ky = step // CHUNKS // KERNEL
        kx = step // CHUNKS % KERNEL
        o_in = step % CHUNKS * BLOCK_IN + tl.arange(0, BLOCK_IN)
        yy = y + ky - KERNEL // 2
        xx = x + kx - KERNEL // 2
        inside = (yy >= 0) & (yy < H) & (xx >= 0) & (xx < W)
        b_x = tl.load(  # [pixels, BLOCK_IN]
            x_ptr + offsets(x_stride, n, yy, xx, o_in),
            mask=inside[:, None] & (o_in < CIN)[None, :],
            other=0,
        )
        tap = w_ptr + ky * w_stride[2] + kx * w_stride[3]
        b_w = tl.load(  # [BLOCK_IN, BLOCK_OUT]
            tap + (o_in * w_stride[1])[:, None] + (o_out * w_stride[0])[None, :],
            mask=(o_in < CIN)[:, None] & (o_out < COUT)[None, :],
            other=0,
        )
        acc = dot(b_x, b_w, acc)
    return acc


@triton.jit
def add_bias(acc, bias_ptr, bias_stride, COUT: tl.constexpr, BLOCK_OUT: tl.constexpr):
    """acc [pixels, BLOCK_OUT] + bias (COUT,)."""
    o_out = tl.arange(0, BLOCK_OUT)
    bias = tl.load(bias_ptr + o_out * bias_stride[0], mask=o_out < COUT, other=0)
    return acc + bias.to(tl.float32)[None, :]


@triton.jit
def conv3x3_kernel(
    x_ptr,  # (N, CIN, H, W)
    x_stride,
    w_ptr,  # (COUT, CIN, 3, 3)
    w_stride,
    bias_ptr,  # (COUT,)
    bias_stride,
    gate_ptr,  # (N, COUT, H, W), read if EPILOGUE is 2
    gate_stride,
    out_ptr,  # (N, COUT, H, W)
    out_stride,
    H,
    W,
    CIN: tl.constexpr,
    COUT: tl.constexpr,
    EPILOGUE: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    INT64: tl.constexpr,
):
    n, y, x = tile(H, W, TILE_H, TILE_W, INT64)
    acc = tl.zeros((TILE_H * TILE_W, BLOCK_OUT), tl.float32)
    acc = accumulate(
        acc, x_ptr, x_stride, w_ptr, w_stride, n, y, x, H, W, CIN, COUT, 3, BLOCK_IN, BLOCK_OUT
    )
    acc = add_bias(acc, bias_ptr, bias_stride, COUT, BLOCK_OUT)
    o_out = tl.arange(0, BLOCK_OUT)
    inside = ((y < H) & (x < W))[:, None] & (o_out < COUT)[None, :]
    if EPILOGUE == 1:
        acc *= sigmoid(acc)
    if EPILOGUE == 2:
        residual = tl.load(gate_ptr + offsets(gate_stride, n, y, x, o_out), mask=inside, other=0)
        acc = gate(residual.to(tl.float32), acc)
    out = out_ptr + offsets(out_stride, n, y, x, o_out)
    tl.store(out, narrow(acc, out_ptr.dtype.element_ty), mask=inside)


def grid(n: int, h: int, w: int, tile_h: int = TILE_H, tile_w: int = TILE_W) -> tuple[int]:
    """One program per tile of every image."""
    return (n * triton.cdiv(h, tile_h) * triton.cdiv(w, tile_w),)


def needs_int64(*images: Tensor) -> bool:
    """Whether column offsets overflow 32 bits; 64-bit offsets take more registers."""
    return any((x.shape[3] + 64) * x.stride(3) >= 2**31 for x in images)


def block_in(channels: int) -> int:
    """Input channels per matrix product: the largest of 64, 32, 16 without padding beyond 16."""
    padded = triton.cdiv(channels, 16) * 16
    return next(block for block in (64, 32, 16) if padded % block == 0)


def block_out(channels: int) -> int:
    """Output channels of a tile: a power of two, at least the 16 that matrix products need."""
    return max(16, triton.next_power_of_2(channels))


def warps(dtype: torch.dtype, channels: int) -> int:
    """Warps of a tile: 8 instead of 4 where a thread would spill registers.

    Wide outputs spill, and so does float32, whose operands stay in registers without tensor cores.
    """
    return 8 if dtype == torch.float32 or channels > 32 else 4


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor, act: str, gate: Tensor | None) -> Tensor:
    n, cin, h, w = x.shape
    cout = weight.shape[0]
    out = layout.empty(x, (n, cout, h, w))
    residual = out if gate is None else gate
    epilogue = EPILOGUES[act] if gate is None else EPILOGUES["gate"]

    def run(row):
        tile_h, tile_w, num_warps = row
        conv3x3_kernel[grid(n, h, w, tile_h, tile_w)](
            x,
            x.stride(),
            weight,
            weight.stride(),
            bias,
            bias.stride(),
            residual,
            residual.stride(),
            out,
            out.stride(),
            h,
            w,
            cin,
            cout,
            epilogue,
            block_in(cin),
            block_out(cout),
            tile_h,
            tile_w,
            needs_int64(x, residual, out),
            num_warps=num_warps,
        )

    if out.numel():
        usual = warps(x.dtype, cout)
        table = [(TILE_H, TILE_W, usual), (4, 32, usual), (8, 8, 4), (16, 16, 8)]
        # Images within the same power of two in size share one tuning result.
        kind = (cin, cout, epilogue, x.dtype, x.device, (n * h * w).bit_length(), x.stride(1))
        tune.launch(("conv3x3", *kind), table, run)
    return out
