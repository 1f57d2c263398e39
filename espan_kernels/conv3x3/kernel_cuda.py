"""The CUDA kernel's door: weights as its warps hold them, pictures in a layout it reads."""

from typing import Any

from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native


def pack(weight: Tensor, bias: Tensor, plain: bool) -> tuple[Tensor, Tensor]:
    """A weight (C, C, 3, 3) and bias (C,), float16, as `launch` wants them; for any number of
    launches.

    plain: for launches with neither activation nor gate.
    """
    weight, bias = scaled(weight, bias, plain)
    return layouts.fragments(weight), bias


def scaled(weight: Tensor, bias: Tensor, plain: bool) -> tuple[Tensor, Tensor]:
    """(the weight, the bias in float32 and filled up), both halved unless `plain`: activations and
    the gate are computed from half of the convolution."""
    scale = 1 if plain else 0.5
    return weight * scale, layouts.padded(bias.float() * scale)


def launch(
    x: Tensor,
    packed: tuple[Tensor, Tensor],
    out: Tensor,
    act: str,
    gate: Tensor | None,
    layout: str,
    half_sums: bool = False,
) -> None:
    """Queues a convolution on the current stream of x's device. Allocates nothing.

    out = span_gate(gate, conv(x)), or without a gate act(conv(x)), act "none" or "silu".
    x, gate, out: float16, dense, 16-byte aligned, out apart from the others. layout "planes":
    (N, ceil(C / 8), H, W, 8), channels past C 0 in all inputs and then in out; "channels_last":
    (N, C, H, W) in that memory format, C a multiple of 8. At least one pixel.
    half_sums: sums of 96 products in float16, of these in float32: planes of more than 24 channels.
    Faster where `machine.half_sums_pay`, less exact everywhere (docs/cuda.md).
    """
    layouts.check_half_sums("conv3x3", half_sums, len(packed[1]), layout)
    given = arguments(x, packed, out, act, gate)
    native.call("conv3x3", x, **given, layout=layout, half_sums=half_sums)


def arguments(
    x: Tensor, packed: tuple[Tensor, Tensor], out: Tensor, act: str, gate: Tensor | None
) -> dict[str, Any]:
    """Of the launchers of both kernels."""
    weights, biases = packed
    epilogue = act if gate is None else "gate"
    maps = {"x": x, "weights": weights, "biases": biases, "gate": gate, "out": out}
    return maps | {"epilogue": epilogue, "channels": len(biases)} | layouts.size(x)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor, act: str, gate: Tensor | None) -> Tensor:
    out = layouts.empty(x, x.shape)
    if not out.numel():
        return out
    packed = pack(weight, bias, gate is None and act == "none")
    if layouts.is_channels_last(out) and x.size(1) % layouts.PLANE == 0:
        (x,) = layouts.laid_out_as(out, x)
        gate = None if gate is None else layouts.laid_out_as(out, gate)[0]
        launch(x, packed, out, act, gate, "channels_last")
        return out
    planes = layouts.to_planes(x)
    gate = None if gate is None else layouts.to_planes(gate)
    result = layouts.empty(planes, planes.shape)
    launch(planes, packed, result, act, gate, "planes")
    return out.copy_(layouts.from_planes(result, x.size(1)))
