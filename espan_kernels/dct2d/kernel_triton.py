"""dct2 and dct_l1 in Triton: C_h @ x @ C_w.T as matrix products.

Images up to 32 x 32 and blocks: one program transforms a tile and, for the loss, transforms it
back. Larger images: one batched matrix product per side.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from espan_kernels import layout
from espan_kernels.dct2d.reference import matrix
from espan_kernels.triton_math import dot, narrow

# Images up to this side are one tile; larger ones are multiplied in tiles of 64.
LARGEST_TILE = 32
TILE, BLOCK_K = 64, 16
# KEEP, the kernels' epilogue: store coefficients, sum magnitudes, or sum and store the signs.
STORE, SUM, SIGN = 0, 1, 2


@triton.jit
def precise(a, b, acc, SPLIT: tl.constexpr, A_EXACT: tl.constexpr = False):
    """acc + a @ b to float32 rounding. SPLIT: as products of split float16 on tensor cores.

    The float16 rounding error of a number, times 2^11, fits float16 again; the product of two
    errors is below float32 rounding. A_EXACT: a is exact in float16 (signs).
    Tensor cores truncate their sums where float32 rounds, which biases coefficients towards zero.
    So they sum only one block, and the larger `acc` is added outside.
    """
    if SPLIT:
        a_high = a.to(tl.float16)
        b_high = b.to(tl.float16)
        b_low = ((b - b_high.to(tl.float32)) * 2048).to(tl.float16)
        low = dot(a_high, b_low, tl.zeros_like(acc))
        if not A_EXACT:
            a_low = ((a - a_high.to(tl.float32)) * 2048).to(tl.float16)
            low = dot(a_low, b_high, low)
        return acc + dot(a_high, b_high, low * (1 / 2048))
    return dot(a, b, acc)


@triton.jit
def sign(x):
    return (x > 0).to(tl.float32) - (x < 0).to(tl.float32)


@triton.jit
def square(ptr, stride, N, S: tl.constexpr):
    """Loads an (N, N) matrix, zero-padded to [S, S]."""
    o = tl.arange(0, S)
    inside = (o < N)[:, None] & (o < N)[None, :]
    return tl.load(ptr + o[:, None] * stride[0] + o[None, :] * stride[1], mask=inside, other=0)


@triton.jit
def tile(H, W, S_H: tl.constexpr, S_W: tl.constexpr):
    """The plane of this program's tile, and the tile's rows and columns in it."""
    across = tl.cdiv(W, S_W)
    per_plane = across * tl.cdiv(H, S_H)
    plane = (tl.program_id(0) // per_plane).to(tl.int64)
    i = tl.program_id(0) % per_plane
    return plane, i // across * S_H + tl.arange(0, S_H), i % across * S_W + tl.arange(0, S_W)


@triton.jit
def tile_kernel(
    x_ptr,  # (planes, H, W)
    minus_ptr,  # (planes, H, W), read for the loss
    down_ptr,  # (down_n, down_n)
    down_stride,
    across_ptr,  # (across_n, across_n)
    across_stride,
    out_ptr,  # (planes, H, W): coefficients, or the gradient
    partial_ptr,  # (programs,): the loss of each tile
    H,
    W,
    down_n,
    across_n,
    scale,
    S_H: tl.constexpr,
    S_W: tl.constexpr,
    KEEP: tl.constexpr,
):
    plane, y, x = tile(H, W, S_H, S_W)
    at = plane * H * W + y[:, None] * W + x[None, :]
    inside = (y < H)[:, None] & (x < W)[None, :]
    down = square(down_ptr, down_stride, down_n, S_H)
    across = square(across_ptr, across_stride, across_n, S_W)
    zeros = tl.zeros((S_H, S_W), tl.float32)
    b = tl.load(x_ptr + at, mask=inside, other=0).to(tl.float32)
    if KEEP == 0:
        b = precise(down, precise(b, tl.trans(across), zeros, False), zeros, False)
        tl.store(out_ptr + at, narrow(b, out_ptr.dtype.element_ty), mask=inside)
    else:
        b -= tl.load(minus_ptr + at, mask=inside, other=0).to(tl.float32)
        b = precise(down, precise(b, tl.trans(across), zeros, True), zeros, True)
        tl.store(partial_ptr + tl.program_id(0), tl.sum(tl.abs(b)))
        if KEEP == 2:
            b = precise(sign(b), across, zeros, True, A_EXACT=True)
            b = precise(tl.trans(down), b, zeros, True) * scale
            tl.store(out_ptr + at, narrow(b, out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def product_kernel(
    a_ptr,  # (planes, M, K)
    minus_ptr,  # like a: a - minus is multiplied, if MINUS
    a_stride,
    b_ptr,  # (planes, K, N)
    b_stride,
    out_ptr,  # (planes, M, N)
    partial_ptr,  # (programs,)
    M,
    N,
    K,
    scale,
    MINUS: tl.constexpr,
    SPLIT: tl.constexpr,
    A_EXACT: tl.constexpr,
    KEEP: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    plane, m, n = tile(M, N, TILE, TILE)
    acc = tl.zeros((TILE, TILE), tl.float32)
    for step in tl.range(tl.cdiv(K, BLOCK_K)):
        k = step * BLOCK_K + tl.arange(0, BLOCK_K)
        a_at = plane * a_stride[0] + m[:, None] * a_stride[1] + k[None, :] * a_stride[2]
        b_at = plane * b_stride[0] + k[:, None] * b_stride[1] + n[None, :] * b_stride[2]
        a_inside = (m < M)[:, None] & (k < K)[None, :]
        a = tl.load(a_ptr + a_at, mask=a_inside, other=0).to(tl.float32)
        if MINUS:
            a -= tl.load(minus_ptr + a_at, mask=a_inside, other=0).to(tl.float32)
        b = tl.load(b_ptr + b_at, mask=(k < K)[:, None] & (n < N)[None, :], other=0)
        acc = precise(a, b.to(tl.float32), acc, SPLIT, A_EXACT)
    if KEEP != 0:
        tl.store(partial_ptr + tl.program_id(0), tl.sum(tl.abs(acc)))
        acc = sign(acc)
    if KEEP != 1:
        at = plane * M * N + m[:, None] * N + n[None, :]
        inside = (m < M)[:, None] & (n < N)[None, :]
        tl.store(out_ptr + at, narrow(acc * scale, out_ptr.dtype.element_ty), mask=inside)


@cache
def _tiled(block: int, device: torch.device) -> Tensor:
    """The matrix that transforms a tile of 32 blockwise: block-diagonal."""
    return torch.block_diag(*[matrix(block, torch.float32, device)] * (32 // block))


def _product(a, b, out, *, minus=None, split=False, a_exact=False, keep=STORE, scale=1.0):
    """out = (a - minus) @ b per plane, with epilogue `keep`; returns the partial sums or None."""
    (planes, m, k), n = a.shape, b.shape[2]
    programs = planes * triton.cdiv(m, TILE) * triton.cdiv(n, TILE)
    partial = layout.empty(a, (programs,), torch.float32) if keep != STORE else None
    product_kernel[(programs,)](
        a,
        a if minus is None else minus,
        a.stride(),
        b,
        b.stride(),
        out,
        a if partial is None else partial,
        m,
        n,
        k,
        scale,
        minus is not None,
        split,
        a_exact,
        keep,
        TILE,
        BLOCK_K,
        num_warps=8,
        # Without a limit ptxas picks 128 or 80 registers in some of these cases, and spills.
        maxnreg=255 if split else None,
    )
    return partial


def _tiles(x, minus, out, block, inverse, keep, scale):
    """One program per tile, with epilogue `keep`; returns the partial sums or None."""
    planes, h, w = x.shape
    down, across = (
        _tiled(block, x.device) if block else matrix(n, torch.float32, x.device) for n in (h, w)
    )
    s_h, s_w = (max(16, triton.next_power_of_2(len(side))) for side in (down, across))
    programs = planes * triton.cdiv(h, s_h) * triton.cdiv(w, s_w)
    partial = layout.empty(x, (programs,), torch.float32) if keep != STORE else None
    if inverse:
        down, across = down.T, across.T
    tile_kernel[(programs,)](
        x,
        minus,
        down,
        down.stride(),
        across,
        across.stride(),
        out,
        x if partial is None else partial,
        h,
        w,
        len(down),
        len(across),
        scale,
        s_h,
        s_w,
        keep,
        num_warps=4,
    )
    return partial


def dct2(x: Tensor, block: int | None, inverse: bool) -> Tensor:
    h, w = x.shape[-2:]
    out = layout.empty(x, x.shape, channels_last=False)
    if not x.numel():
        return out
    planes = x.contiguous().view(-1, h, w)
    if block or max(h, w) <= LARGEST_TILE:
        _tiles(planes, planes, out, block, inverse, STORE, 1.0)
        return out
    down, across = (matrix(n, torch.float32, x.device).expand(len(planes), n, n) for n in (h, w))
    if inverse:
        down, across = down.mT, across.mT
    half = layout.empty(x, planes.shape, torch.float32)
    _product(planes, across.mT, half)
    _product(down, half, out)
    return out


def dct_l1(sr: Tensor, hr: Tensor, block: int | None, with_grad: bool) -> tuple[Tensor, Tensor]:
    h, w = sr.shape[-2:]
    gradient = layout.empty(sr, sr.shape if with_grad else (0,), channels_last=False)
    if not sr.numel():
        return torch.full((), float("nan"), device=sr.device), gradient
    a, b = (t.contiguous().view(-1, h, w) for t in (sr, hr))
    keep, scale = SIGN if with_grad else SUM, 1 / sr.numel()
    if block or max(h, w) <= LARGEST_TILE:
        partial = _tiles(a, b, gradient, block, False, keep, scale)
        return partial.double().sum().mul(scale).float(), gradient
    down, across = (matrix(n, torch.float32, sr.device).expand(len(a), n, n) for n in (h, w))
    half = layout.empty(sr, a.shape, torch.float32)
    signs = layout.empty(sr, a.shape, torch.float16) if with_grad else half
    _product(a, across.mT, half, minus=b, split=True)
    partial = _product(down, half, signs, split=True, keep=keep)
    if with_grad:
        _product(signs, across, half, split=True, a_exact=True)
        _product(down.mT, half, gradient, split=True, scale=scale)
    return partial.double().sum().mul(scale).float(), gradient
