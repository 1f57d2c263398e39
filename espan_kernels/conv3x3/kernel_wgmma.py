"""conv3x3 by the tensor cores of sm_90a: weights as they lie in shared memory, maps in planes."""

from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native
from espan_kernels.conv3x3 import kernel_cuda


def pack(weight: Tensor, bias: Tensor, plain: bool) -> tuple[Tensor, Tensor]:
    """As kernel_cuda's, for the launches of this kernel."""
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
    """Queues a convolution on the current stream of x's device. Allocates nothing.

    out = span_gate(gate, conv(x)), or without a gate act(conv(x)), act "none" or "silu".
    x, gate, out: (N, ceil(C / 8), H, W, 8) float16, dense, 16-byte aligned, out apart from the
    others, channels past C 0 in all inputs and then in out. At least one pixel.
    overlap: as of spab's.
    """
    given = kernel_cuda.arguments(x, packed, out, act, gate)
    native.call("conv3x3_wgmma", x, **given, overlap=overlap)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor, act: str, gate: Tensor | None) -> Tensor:
    out = layouts.empty(x, x.shape)
    if not out.numel():
        return out
    planes = layouts.to_planes(x)
    gate = None if gate is None else layouts.to_planes(gate)
    result = layouts.empty(planes, planes.shape)
    plain = gate is None and act == "none"
    launch(planes, pack(weight, bias, plain), result, act, gate)
    return out.copy_(layouts.from_planes(result, x.size(1)))
