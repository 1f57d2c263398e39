"""conv9x9_head: the 9x9 convolution from the image to the first feature maps."""

import torch
from torch import Tensor

from espan_kernels import check
from espan_kernels.conv3x3 import max_channels
from espan_kernels.conv9x9_head import sample
from espan_kernels.conv9x9_head.reference import reference
from espan_kernels.machine import (
    forward_only,
    kernel_dtype,
    needs_cuda,
    needs_triton,
    needs_wgmma,
)
from espan_kernels.op import Op


def cuda_head_limits(x, weight, bias) -> str | None:
    """The CUDA kernel multiplies in float16 and pads the output channels to 32."""
    if weight.dtype != torch.float16:
        return f"the CUDA kernel needs float16 weights, got {weight.dtype}"
    if not 24 < (channels := weight.shape[0]) <= 32:
        return f"the CUDA kernel needs 25 to 32 output channels, got {channels}"
    return None


op = Op("conv9x9_head", reference, sample.CASES, sample.make)
op.kernel(
    "cuda",
    "espan_kernels.conv9x9_head.kernel_cuda:conv9x9_head",
    needs_cuda,
    cuda_head_limits,
    forward_only,
)
op.kernel(
    "cuda_wgmma",
    "espan_kernels.conv9x9_head.kernel_wgmma:conv9x9_head",
    needs_wgmma,
    cuda_head_limits,
    forward_only,
)
op.kernel(
    "triton",
    "espan_kernels.conv9x9_head.kernel_triton:conv9x9_head",
    needs_triton,
    kernel_dtype,
    max_channels,
    forward_only,
)


def conv9x9_head(x: Tensor, weight: Tensor, bias: Tensor, *, impl: str | None = None) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=4)`; uint8 x is read as `x.to(weight.dtype) / 255`.

    All tensors share one device and one floating dtype (x may be uint8); strides are arbitrary.
    Kernels support up to 64 output channels and no gradient; "cuda" supports 25 to 32 and float16
    weights and is fastest on contiguous or channels_last images. Eager supports everything.

    Args:
        x: images (N, 3, H, W), floating point or uint8.
        weight: (out, 3, 9, 9).
        bias: (out,).
        impl: "cuda", "cuda_wgmma", "triton" or "eager" runs exactly that implementation; None runs
            the fastest one available.

    Returns:
        (N, out, H, W) in the dtype of `weight`.

    Raises:
        ValueError: an argument is invalid, or `impl` cannot run here.
    """
    name = "conv9x9_head"
    check.image(name, "x", x, 3, uint8=True)
    check.weight(name, "weight", weight, 9, 3)
    check.bias(name, "bias", bias, weight.size(0))
    if not weight.is_floating_point():
        raise check.error(name, "weight", "floating point", weight.dtype)
    check.same_device_and_dtype(name, "weight bias", weight, bias)
    if x.dtype != torch.uint8:
        check.same_device_and_dtype(name, "weight x", weight, x)
    elif x.device != weight.device:
        raise check.error(name, "x", f"a tensor on {weight.device}", x.device)
    return op(x, weight, bias, impl=impl)
