"""spab: SPAN's attention block of convolutions, SiLUs and a gate."""

from collections.abc import Sequence

from torch import Tensor

from espan_kernels import check
from espan_kernels.conv3x3 import max_channels
from espan_kernels.machine import (
    WGMMA_REFUSALS,
    cuda_conv_limits,
    forward_only,
    kernel_dtype,
    needs_cuda,
    needs_triton,
)
from espan_kernels.op import Op
from espan_kernels.spab import sample
from espan_kernels.spab.reference import reference

op = Op("spab", reference, sample.CASES, sample.make)
op.kernel("cuda", "espan_kernels.spab.kernel_cuda:spab", needs_cuda, cuda_conv_limits, forward_only)
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
    """`h = F.silu(F.conv2d(h, w, b, padding=1))` for all convolutions except the last, starting
    with `h = x`; then `span_gate(x, F.conv2d(h, w, b, padding=1))`.

    All tensors share one device and one floating dtype; strides are arbitrary. Kernels support up
    to 64 channels and no gradient. "cuda" supports float16 and 17 to 64 channels, fuses up to 32
    into one kernel, and is fastest on channels_last and multiples of 8. Eager supports everything.

    Args:
        x: (N, C, H, W).
        weights: 2 or 3 tensors (C, C, 3, 3).
        biases: one (C,) for each weight.
        impl: "cuda", "cuda_wgmma", "triton" or "eager" runs exactly that implementation; None runs
            the fastest one available.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: an argument is invalid, or `impl` cannot run here.
    """
    check.image("spab", "x", x)
    channels = x.size(1)
    if len(weights) not in (2, 3):
        raise check.error("spab", "weights", "2 or 3 tensors", len(weights))
    if len(biases) != len(weights):
        raise check.error("spab", "biases", f"{len(weights)} tensors", len(biases))
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        check.weight("spab", f"weights[{i}]", weight, 3, channels, channels)
        check.bias("spab", f"biases[{i}]", bias, channels)
    check.same_device_and_dtype("spab", _NAMES[len(weights)], x, *weights, *biases)
    return op(x, list(weights), list(biases), impl=impl)
