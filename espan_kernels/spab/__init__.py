"""spab: SPAN's attention block, its convolutions, SiLUs and gate."""

from collections.abc import Sequence

import torch
from torch import Tensor

from espan_kernels.check import alike, conv, expect, picture
from espan_kernels.conv3x3 import max_channels
from espan_kernels.machine import (
    capability,
    forward_only,
    half_of_32_channels,
    kernel_dtype,
    needs_cuda,
    needs_triton,
)
from espan_kernels.op import Op
from espan_kernels.spab import sample
from espan_kernels.spab.reference import reference


def fits_registers(x, weights, biases) -> str | None:
    """The fused kernel holds every open row of every convolution in registers."""
    if x.dtype == torch.float32:
        return "fused rows of float32 do not fit the registers"
    if x.shape[1] not in (16, 32):
        return f"fused rows hold 16 or 32 channels, got {x.shape[1]}"
    if x.is_cuda and capability(x.device.index) >= (12, 0):
        return "fused rows spill registers on compute capability 12"
    return None


op = Op("spab", reference, sample.CASES, sample.make)
op.kernel(
    "cuda", "espan_kernels.spab.kernel_cuda:spab", needs_cuda, half_of_32_channels, forward_only
)
op.kernel(
    "triton",
    "espan_kernels.spab.kernel_triton:spab",
    needs_triton,
    kernel_dtype,
    max_channels,
    forward_only,
)
# Behind the composed form, which means only on request, until a GPU has timed both.
op.kernel(
    "triton_fused",
    "espan_kernels.spab.kernel_triton:spab_fused",
    needs_triton,
    kernel_dtype,
    fits_registers,
    forward_only,
)


def spab(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, impl: str | None = None
) -> Tensor:
    """`for w, b in convs: h = F.silu(F.conv2d(h, w, b, padding=1))`, but for the last conv,
    then `span_gate(x, F.conv2d(h, w, b, padding=1))`.

    x (N, C, H, W); 2 or 3 weights (C, C, 3, 3) and biases (C,): any strides, one device and
    floating dtype; kernels take up to 64 channels and no gradient, eager any. Returns
    (N, C, H, W). impl: None takes the fastest that runs, "cuda", "triton" or "eager" that one
    and no other, and so "triton_fused": all convs in one kernel, half precision, 16 or
    32 channels. "cuda" is one kernel too: float16, 32 channels, fastest on channels_last. Raises
    ValueError for arguments that do not fit.
    """
    picture("spab", "x", x)
    expect(len(weights) in (2, 3), "spab", "weights", "2 or 3 of them", len(weights))
    expect(len(biases) == len(weights), "spab", "biases", f"{len(weights)} of them", len(biases))
    channels = x.shape[1]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        conv("spab", f"weights[{i}]", weight, bias, 3, channels)
        expect(
            weight.shape[0] == channels,
            "spab",
            f"weights[{i}]",
            f"{channels} channels out",
            weight.shape[0],
        )
    alike("spab", "x", x, *weights, *biases)
    return op(x, list(weights), list(biases), impl=impl)
