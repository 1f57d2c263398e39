"""conv3x3 with wgmma (sm_90a): weights in shared-memory order, feature maps in NC/8HW8 layout."""

from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native
from espan_kernels.conv3x3 import kernel_cuda


def pack(weight: Tensor, bias: Tensor, plain: bool) -> tuple[Tensor, Tensor]:
    """Same as kernel_cuda's `pack`, for launches of this kernel."""
    weight, bias = kernel_cuda.scaled(weight, bias, plain)
    return layouts.wgmma_taps(weight), bias


def launch(
    x: Tensor,
    packed: tuple[Tensor, Tensor],
    out: Tensor,
    act: str,
    gate: Tensor | None,
    overlap: bool = False,
) -> None:
    """Launches a convolution on the current stream of x's device. Allocates nothing.

    out = span_gate(gate, conv(x)), or without a gate act(conv(x)), act "none" or "silu".
    x, gate, out: (N, ceil(C / 8), H, W, 8) float16, dense, 16-byte aligned; out overlaps no input;
    channels past C zero in all inputs, and then in out. At least one pixel.
    overlap: see spab's `launch`.
    """
    shared = kernel_cuda.arguments(x, packed, out, act, gate)
    native.call("conv3x3_wgmma", x, **shared, overlap=overlap)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor, act: str, gate: Tensor | None) -> Tensor:
    out = layouts.empty(x, x.shape)
    if not out.numel():
        return out
    planes = layouts.to_nc8hw8(x)
    gate = None if gate is None else layouts.to_nc8hw8(gate)
    result = layouts.empty(planes, planes.shape)
    plain = gate is None and act == "none"
    launch(planes, pack(weight, bias, plain), result, act, gate)
    return out.copy_(layouts.from_nc8hw8(result, x.size(1)))
