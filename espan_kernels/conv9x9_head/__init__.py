"""conv9x9_head: the 9x9 convolution from the picture to the first features."""

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


def half_to_32_channels(x, weight, bias) -> str | None:
    """The CUDA kernel multiplies float16 and fills the channels out up to 32."""
    if weight.dtype != torch.float16:
        return f"the CUDA kernel takes weights of float16, got {weight.dtype}"
    if not 24 < (channels := weight.shape[0]) <= 32:
        return f"the CUDA kernel takes 25 to 32 channels out, got {channels}"
    return None


op = Op("conv9x9_head", reference, sample.CASES, sample.make)
op.kernel(
    "cuda",
    "espan_kernels.conv9x9_head.kernel_cuda:conv9x9_head",
    needs_cuda,
    half_to_32_channels,
    forward_only,
)
op.kernel(
    "cuda_wgmma",
    "espan_kernels.conv9x9_head.kernel_wgmma:conv9x9_head",
    needs_wgmma,
    half_to_32_channels,
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
    """`F.conv2d(x, weight, bias, padding=4)`; a uint8 x stands for `x.to(weight.dtype) / 255`.

    All tensors have any strides, one device and one floating dtype (x may be uint8). Kernels take
    up to 64 channels out and no gradient, "cuda" 25 to 32 and float16 weights, fastest on
    contiguous or channels_last images; eager takes any.

    Args:
        x: images (N, 3, H, W), floating point or uint8.
        weight: (out, 3, 9, 9).
        bias: (out,).
        impl: None takes the fastest that runs, "cuda", "cuda_wgmma", "triton" or
            "eager" that one and no other.

    Returns:
        (N, out, H, W) in the dtype of `weight`.

    Raises:
        ValueError: an argument does not fit, or `impl` does not run here.
    """
    name = "conv9x9_head"
    check.picture(name, "x", x, 3, uint8=True)
    check.weight(name, "weight", weight, 9, 3)
    check.bias(name, "bias", bias, weight.size(0))
    if not weight.is_floating_point():
        raise check.error(name, "weight", "floating point", weight.dtype)
    check.alike(name, "weight bias", weight, bias)
    if x.dtype != torch.uint8:
        check.alike(name, "weight x", weight, x)
    elif x.device != weight.device:
        raise check.error(name, "x", f"a tensor on {weight.device}", x.device)
    return op(x, weight, bias, impl=impl)
