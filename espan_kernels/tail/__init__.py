"""tail: from the feature maps of a SPAN network to the upscaled image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from espan_kernels import check
from espan_kernels.conv3x3 import max_channels
from espan_kernels.machine import (
    forward_only,
    kernel_dtype,
    needs_cuda,
    needs_triton,
    needs_wgmma,
)
from espan_kernels.op import Op
from espan_kernels.tail import sample
from espan_kernels.tail.reference import reference


def cuda_tail_limits(inputs, weights, bias, *up) -> str | None:
    """The CUDA kernel is compiled for the convolution sums of ESPAN and SPAN in float16."""
    if bias.dtype != torch.float16:
        return f"the CUDA kernel needs float16, got {bias.dtype}"
    channels = [bias.shape[0], *(x.shape[1] for x in inputs)]
    if len({*channels}) > 1 or not 24 < channels[0] <= 32:
        return f"the CUDA kernel needs 25 to 32 channels, the same everywhere, got {channels}"
    kernels = sorted(weight.shape[-1] for weight in weights)
    if kernels not in ([1, 1, 3], [1, 1, 1, 3]):
        return f"the CUDA kernel sums a 3x3 and two or three 1x1 convolutions, got {kernels}"
    return None


def wgmma_tail_limits(inputs, weights, bias, *up) -> str | None:
    """The sums of ESPAN and SPAN, and SPAN-F's three 1x1 convolutions, one of them on the image."""
    shapes = sorted((weight.shape[1], weight.shape[-1]) for weight in weights)
    if shapes == [(3, 1), (len(bias), 1), (len(bias), 1)] and bias.dtype == torch.float16:
        if not 24 < len(bias) <= 32:
            return f"the wgmma kernel needs 25 to 32 channels, got {len(bias)}"
        return None
    return cuda_tail_limits(inputs, weights, bias, *up)


op = Op("tail", reference, sample.CASES, sample.make)
op.kernel("cuda", "espan_kernels.tail.kernel_cuda:tail", needs_cuda, cuda_tail_limits, forward_only)
op.kernel(
    "cuda_wgmma",
    "espan_kernels.tail.kernel_wgmma:tail",
    needs_wgmma,
    wgmma_tail_limits,
    forward_only,
)
op.kernel(
    "triton",
    "espan_kernels.tail.kernel_triton:tail",
    needs_triton,
    kernel_dtype,
    max_channels,
    forward_only,
)

_NAMES = {
    n: " ".join(
        [
            *(f"inputs[{i}]" for i in range(n)),
            *(f"weights[{i}]" for i in range(n)),
            "bias up_weight up_bias",
        ]
    )
    for n in (1, 2, 3, 4)
}


def tail(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    *,
    scale: int,
    clamp: bool = False,
    uint8: bool = False,
    impl: str | None = None,
) -> Tensor:
    """`h = sum(F.conv2d(x, w, padding=w.shape[-1] // 2) for x, w in zip(inputs, weights)) + bias`,
    then `F.pixel_shuffle(F.conv2d(h, up_weight, up_bias, padding=1), scale)`.

    A 1x1 convolution of concatenated tensors is such a sum; `espan_kernels.merge.merge_tail`
    merges a 3x3 convolution of one input before the concatenation into its weight. All tensors
    share one device and one floating dtype; strides are arbitrary. Kernels support up to 64
    channels and no gradient; "cuda" supports float16, 25 to 32 channels everywhere, one 3x3 and two
    or three 1x1 weights. Eager supports everything.

    Args:
        inputs: 1 to 4 tensors (N, C_i, H, W).
        weights: (C, C_i, k, k) for each input, k 1 or 3.
        bias: (C,).
        up_weight: (3 * scale^2, C, 3, 3).
        up_bias: (3 * scale^2,).
        scale: 2, 3 or 4.
        clamp: True clamps the result to 0..1.
        uint8: True also clamps it and returns `(out * 255).round()` as uint8, rounding halves to
            even.
        impl: "cuda", "cuda_wgmma", "triton" or "eager" runs exactly that implementation; None runs
            the fastest one available.

    Returns:
        Images (N, 3, scale * H, scale * W).

    Raises:
        ValueError: an argument is invalid, or `impl` cannot run here.
    """
    if not 1 <= len(inputs) <= 4:
        raise check.error("tail", "inputs", "1 to 4 tensors", len(inputs))
    if len(weights) != len(inputs):
        raise check.error("tail", "weights", f"{len(inputs)} tensors", len(weights))
    if scale not in (2, 3, 4):
        raise check.error("tail", "scale", "2, 3 or 4", scale)
    check.tensor("tail", "bias", bias)
    channels = bias.numel()
    check.bias("tail", "bias", bias, channels)
    check.weight("tail", "up_weight", up_weight, 3, channels, 3 * scale**2)
    check.bias("tail", "up_bias", up_bias, 3 * scale**2)
    check.image("tail", "inputs[0]", inputs[0])
    n, _, h, w = inputs[0].shape
    for i, (x, weight) in enumerate(zip(inputs, weights, strict=True)):
        check.image("tail", f"inputs[{i}]", x)
        if x.shape != (n, x.size(1), h, w):
            expected = "the batch, height and width of inputs[0]"
            raise check.error("tail", f"inputs[{i}]", expected, tuple(x.shape))
        check.tensor("tail", f"weights[{i}]", weight)
        kernel = 1 if weight.dim() == 4 and weight.size(3) == 1 else 3
        check.weight("tail", f"weights[{i}]", weight, kernel, x.size(1), channels)
    check.same_device_and_dtype(
        "tail", _NAMES[len(inputs)], *inputs, *weights, bias, up_weight, up_bias
    )
    return op(list(inputs), list(weights), bias, up_weight, up_bias, scale, clamp, uint8, impl=impl)
