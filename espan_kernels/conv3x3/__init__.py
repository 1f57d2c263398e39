"""conv3x3: a 3x3 convolution with bias and one of three epilogues."""

from torch import Tensor

from espan_kernels import check
from espan_kernels.conv3x3 import sample
from espan_kernels.conv3x3.reference import reference
from espan_kernels.machine import (
    WGMMA_REFUSALS,
    cuda_conv_limits,
    forward_only,
    kernel_dtype,
    needs_cuda,
    needs_triton,
    tensors,
)
from espan_kernels.op import Op

MAX_CHANNELS = 64


def max_channels(*args) -> str | None:
    """Convolution kernels accumulate all output channels of a tile together."""
    # Images and weights have input channels in dimension 1, biases output channels in dimension 0.
    most = max(t.shape[1] if t.dim() == 4 else t.shape[0] for t in tensors(args))
    return f"up to {MAX_CHANNELS} channels in and out, got {most}" if most > MAX_CHANNELS else None


op = Op("conv3x3", reference, sample.CASES, sample.make)
op.kernel(
    "cuda",
    "espan_kernels.conv3x3.kernel_cuda:conv3x3",
    needs_cuda,
    cuda_conv_limits,
    forward_only,
)
op.kernel("cuda_wgmma", "espan_kernels.conv3x3.kernel_wgmma:conv3x3", *WGMMA_REFUSALS)
op.kernel(
    "triton",
    "espan_kernels.conv3x3.kernel_triton:conv3x3",
    needs_triton,
    kernel_dtype,
    max_channels,
    forward_only,
)


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    act: str = "none",
    gate: Tensor | None = None,
    impl: str | None = None,
) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=1)`, then its epilogue.

    All tensors share one device and one floating dtype; strides are arbitrary. Kernels support up
    to 64 channels and no gradient; "cuda" supports float16 with 17 to 64 channels, the same number
    in and out. Eager supports everything.

    Args:
        x: (N, in, H, W).
        weight: (out, in, 3, 3).
        bias: (out,).
        act: the epilogue: "none", or "silu" for `F.silu` of the convolution.
        gate: (N, out, H, W) for the epilogue `span_gate(gate, conv)`; excludes act="silu".
        impl: "cuda", "cuda_wgmma", "triton" or "eager" runs exactly that implementation; None runs
            the fastest one available.

    Returns:
        (N, out, H, W).

    Raises:
        ValueError: an argument is invalid, or `impl` cannot run here.
    """
    check.image("conv3x3", "x", x)
    check.weight("conv3x3", "weight", weight, 3, x.size(1))
    check.bias("conv3x3", "bias", bias, weight.size(0))
    check.same_device_and_dtype("conv3x3", "x weight bias", x, weight, bias)
    if act not in ("none", "silu"):
        raise check.error("conv3x3", "act", "'none' or 'silu'", repr(act))
    if gate is not None:
        check.image("conv3x3", "gate", gate)
        check.same_device_and_dtype("conv3x3", "x gate", x, gate)
        shape = (x.size(0), weight.size(0), *x.shape[2:])
        if gate.shape != shape:
            raise check.error("conv3x3", "gate", f"shape {shape}", tuple(gate.shape))
        if act != "none":
            raise check.error("conv3x3", "act", "'none' with a gate", repr(act))
    return op(x, weight, bias, act, gate, impl=impl)
