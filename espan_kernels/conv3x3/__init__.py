"""conv3x3: a 3x3 convolution with bias and one of three epilogues."""

from torch import Tensor

from espan_kernels import check
from espan_kernels.conv3x3 import sample
from espan_kernels.conv3x3.reference import reference
from espan_kernels.machine import (
    WGMMA_REFUSALS,
    forward_only,
    half_of_few_channels,
    kernel_dtype,
    needs_cuda,
    needs_triton,
    tensors,
)
from espan_kernels.op import Op

MAX_CHANNELS = 64


def max_channels(*args) -> str | None:
    """Convolution kernels hold all output channels of a tile at once."""
    # Inputs and weights tell the channels in, biases the channels out.
    most = max(t.shape[1] if t.dim() == 4 else t.shape[0] for t in tensors(args))
    return f"up to {MAX_CHANNELS} channels in and out, got {most}" if most > MAX_CHANNELS else None


op = Op("conv3x3", reference, sample.CASES, sample.make)
op.kernel(
    "cuda",
    "espan_kernels.conv3x3.kernel_cuda:conv3x3",
    needs_cuda,
    half_of_few_channels,
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

    All tensors have any strides, one device and one floating dtype. Kernels take up to 64 channels
    and no gradient, "cuda" float16 and 17 to 64 channels, as many out as in; eager takes any.

    Args:
        x: (N, in, H, W).
        weight: (out, in, 3, 3).
        bias: (out,).
        act: the epilogue, "none" or "silu", which is `F.silu` of the convolution.
        gate: x0 (N, out, H, W) makes the epilogue `span_gate(x0, conv)`; not together with "silu".
        impl: None takes the fastest that runs, "cuda", "cuda_wgmma", "triton" or
            "eager" that one and no other.

    Returns:
        (N, out, H, W).

    Raises:
        ValueError: an argument does not fit, or `impl` does not run here.
    """
    check.picture("conv3x3", "x", x)
    check.weight("conv3x3", "weight", weight, 3, x.size(1))
    check.bias("conv3x3", "bias", bias, weight.size(0))
    check.alike("conv3x3", "x weight bias", x, weight, bias)
    if act not in ("none", "silu"):
        raise check.error("conv3x3", "act", "'none' or 'silu'", repr(act))
    if gate is not None:
        check.picture("conv3x3", "gate", gate)
        check.alike("conv3x3", "x gate", x, gate)
        shape = (x.size(0), weight.size(0), *x.shape[2:])
        if gate.shape != shape:
            raise check.error("conv3x3", "gate", f"shape {shape}", tuple(gate.shape))
        if act != "none":
            raise check.error("conv3x3", "act", "'none' with a gate", repr(act))
    return op(x, weight, bias, act, gate, impl=impl)
