"""spab: SPAN's attention block, its convolutions, SiLUs and gate."""

from collections.abc import Sequence

from torch import Tensor

from espan_kernels import check
from espan_kernels.conv3x3 import max_channels
from espan_kernels.machine import (
    WGMMA_REFUSALS,
    forward_only,
    half_of_few_channels,
    kernel_dtype,
    needs_cuda,
    needs_triton,
)
from espan_kernels.op import Op
from espan_kernels.spab import sample
from espan_kernels.spab.reference import reference

op = Op("spab", reference, sample.CASES, sample.make)
op.kernel(
    "cuda", "espan_kernels.spab.kernel_cuda:spab", needs_cuda, half_of_few_channels, forward_only
)
op.kernel("cuda_wgmma", "espan_kernels.spab.kernel_wgmma:spab", *WGMMA_REFUSALS)
op.kernel(
    "triton",
    "espan_kernels.spab.kernel_triton:spab",
    needs_triton,
    kernel_dtype,
    max_channels,
    forward_only,
)

_NAMES = {
    n: " ".join(["x", *(f"weights[{i}]" for i in range(n)), *(f"biases[{i}]" for i in range(n))])
    for n in (2, 3)
}


def spab(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, impl: str | None = None
) -> Tensor:
    """`for w, b in convs: h = F.silu(F.conv2d(h, w, b, padding=1))`, but for the last conv,
    then `span_gate(x, F.conv2d(h, w, b, padding=1))`.

    All tensors have any strides, one device and one floating dtype. Kernels take up to 64 channels
    and no gradient; "cuda" takes float16 and 17 to 64 channels, up to 32 in one kernel, and is
    fastest on channels_last and where they are a multiple of 8. Eager takes any.

    Args:
        x: (N, C, H, W).
        weights: 2 or 3 of (C, C, 3, 3).
        biases: as many of (C,).
        impl: None takes the fastest that runs, "cuda", "cuda_wgmma", "triton" or
            "eager" that one and no other.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: an argument does not fit, or `impl` does not run here.
    """
    check.picture("spab", "x", x)
    channels = x.size(1)
    if len(weights) not in (2, 3):
        raise check.error("spab", "weights", "2 or 3 of them", len(weights))
    if len(biases) != len(weights):
        raise check.error("spab", "biases", f"{len(weights)} of them", len(biases))
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        check.weight("spab", f"weights[{i}]", weight, 3, channels, channels)
        check.bias("spab", f"biases[{i}]", bias, channels)
    check.alike("spab", _NAMES[len(weights)], x, *weights, *biases)
    return op(x, list(weights), list(biases), impl=impl)
