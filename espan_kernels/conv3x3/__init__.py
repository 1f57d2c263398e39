"""conv3x3: a 3x3 convolution with bias and one of three epilogues."""

from torch import Tensor

from espan_kernels.check import alike, conv, expect, picture
from espan_kernels.conv3x3 import sample
from espan_kernels.conv3x3.reference import reference
from espan_kernels.machine import (
    forward_only,
    half_of_32_channels,
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
    half_of_32_channels,
    forward_only,
)
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

    act="silu": `F.silu` of it; gate=x0: `span_gate(x0, conv)`; both at once are refused.
    x (N, in, H, W), weight (out, in, 3, 3), bias (out,), gate (N, out, H, W): any strides, one
    device and floating dtype; kernels take up to 64 channels and no gradient, "cuda" float16 and 32
    channels in and out, eager any. Returns (N, out, H, W). impl: None takes the fastest that runs,
    "cuda", "triton" or "eager" that one and no other. Raises ValueError for arguments that do not
    fit.
    """
    picture("conv3x3", "x", x)
    conv("conv3x3", "weight", weight, bias, 3, x.shape[1])
    expect(act in ("none", "silu"), "conv3x3", "act", "'none' or 'silu'", repr(act))
    alike("conv3x3", "x", x, weight, bias)
    if gate is not None:
        shape = (x.shape[0], weight.shape[0], *x.shape[2:])
        picture("conv3x3", "gate", gate)
        expect(gate.shape == shape, "conv3x3", "gate", f"shape {shape}", tuple(gate.shape))
        expect(act == "none", "conv3x3", "act", "'none' with a gate", repr(act))
        alike("conv3x3", "x", x, gate)
    return op(x, weight, bias, act, gate, impl=impl)
