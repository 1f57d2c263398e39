"""dct2 and dct_l1: the orthonormal DCT of images, and the L1 loss of its coefficients."""

import torch
from torch import Tensor

from espan_kernels import check, layout
from espan_kernels.dct2d import kernel_cuda, sample
from espan_kernels.dct2d.reference import reference, reference_l1, wide_dtype
from espan_kernels.machine import kernel_dtype, needs_cuda, needs_triton
from espan_kernels.op import Op

BLOCKS = (4, 8, 16, 32)
SMALLEST, LARGEST = 8, 512


def _remember(ctx, inputs, output):
    _, ctx.block, ctx.inverse = inputs


def _transpose(ctx, grad):
    # The matrix is orthonormal, so its transpose is its inverse.
    return op(grad, ctx.block, not ctx.inverse, impl="triton"), None, None


op = Op(
    "dct2",
    reference,
    sample.CASES + sample.INVERSE,
    sample.make,
    fake=lambda x, block, inverse: layout.empty(x, x.shape, channels_last=False),
    setup_context=_remember,
    backward=_transpose,
)
op.unavailable("cuda", kernel_cuda.REASON)
op.kernel("triton", "espan_kernels.dct2d.kernel_triton:dct2", needs_triton, kernel_dtype)


def _keep(ctx, inputs, output):
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _scale(ctx, grad, _):
    (gradient,) = ctx.saved_tensors
    gradient = (grad * gradient).to(gradient.dtype)
    return gradient, -gradient if ctx.needs_input_grad[1] else None, None, None


def _fake_l1(sr, hr, block, with_grad):
    gradient = layout.empty(sr, sr.shape if with_grad else (0,), channels_last=False)
    return layout.empty(sr, (), wide_dtype(sr)), gradient


op_l1 = Op(
    "dct_l1",
    reference_l1,
    sample.CASES,
    sample.make_l1,
    fake=_fake_l1,
    setup_context=_keep,
    backward=_scale,
)
op_l1.kernel(
    "cuda",
    "espan_kernels.dct2d.kernel_cuda:dct_l1",
    needs_cuda,
    kernel_dtype,
    kernel_cuda.fits_strip,
)
op_l1.kernel("triton", "espan_kernels.dct2d.kernel_triton:dct_l1", needs_triton, kernel_dtype)


def _check(name: str, argument: str, x: Tensor, block: int | None) -> None:
    check.tensor(name, argument, x)
    if x.dim() < 2:
        raise check.error(name, argument, "2 dimensions or more", f"shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise check.error(name, argument, "floating point", x.dtype)
    h, w = x.shape[-2:]
    if block is None:
        if min(h, w) < SMALLEST or max(h, w) > LARGEST:
            expected = f"height and width of {SMALLEST} to {LARGEST} without a block"
            raise check.error(name, argument, expected, (h, w))
    elif block not in BLOCKS:
        raise check.error(name, "block", f"None or one of {BLOCKS}", block)
    elif h % block or w % block or not h * w:
        expected = f"height and width that are multiples of block={block}"
        raise check.error(name, argument, expected, (h, w))


def dct2(
    x: Tensor, *, block: int | None = None, inverse: bool = False, impl: str | None = None
) -> Tensor:
    """`C_h @ x @ C_w.T`, C_n the orthonormal DCT-II matrix: `scipy.fft.dctn(x, norm="ortho")`.

    Differentiable, any number of times.

    Args:
        x: (..., H, W), floating point, transformed over the last two dimensions, 8 to 512 each;
            float16 and bfloat16 are computed in float32.
        block: 4, 8, 16 or 32 transforms each block of that side in place (H and W are multiples
            of it); None transforms the entire image.
        inverse: True computes the inverse, the DCT-III.
        impl: "triton" or "eager" runs exactly that implementation; None runs the fastest one
            available.

    Returns:
        (..., H, W) in the dtype of `x`.

    Raises:
        ValueError: an argument is invalid, or `impl` cannot run here.
    """
    _check("dct2", "x", x, block)
    return op(x, block, inverse, impl=impl)


def dct_l1(sr: Tensor, hr: Tensor, *, block: int | None = None, impl: str | None = None) -> Tensor:
    """`dct2(sr - hr, block=block).abs().mean()`; the DCT is linear, so one transform is enough.

    Kernels compute the gradient in the same pass, with sign(0) = 0. They multiply in split
    float16, as exact as float32 while abs(sr - hr) is below 1000.

    Args:
        sr, hr: same shape (..., H, W), device and floating dtype; sides as in `dct2`.
        block: see `dct2`.
        impl: "cuda", "triton" or "eager" runs exactly that implementation; None runs the fastest
            one available.

    Returns:
        A scalar () in float32 (float64 for float64 inputs). The summation order is fixed, so equal
        inputs give bit-identical results.

    Raises:
        ValueError: an argument is invalid, or `impl` cannot run here.
    """
    _check("dct_l1", "sr", sr, block)
    check.tensor("dct_l1", "hr", hr)
    if hr.shape != sr.shape:
        expected = f"the shape of sr, {tuple(sr.shape)}"
        raise check.error("dct_l1", "hr", expected, tuple(hr.shape))
    check.same_device_and_dtype("dct_l1", "sr hr", sr, hr)
    with_grad = torch.is_grad_enabled() and (sr.requires_grad or hr.requires_grad)
    return op_l1(sr, hr, block, with_grad, impl=impl)[0]
