"""conv3x3 in CUDA: packs the weights for the warps, converts layouts and launches the kernel."""

from typing import Any

from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native


def pack(weight: Tensor, bias: Tensor, plain: bool) -> tuple[Tensor, Tensor]:
    """Packs a float16 weight (C, C, 3, 3) and bias (C,) for `launch`; reusable.

    plain: for launches with neither activation nor gate.
    """
    weight, bias = scaled(weight, bias, plain)
    return layouts.fragments(weight), bias


def scaled(weight: Tensor, bias: Tensor, plain: bool) -> tuple[Tensor, Tensor]:
    """(weight, bias in float32 and zero-padded), both halved unless `plain`: the activation and the
    gate are computed from half of the convolution.
    """
    scale = 1 if plain else 0.5
    return weight * scale, layouts.padded(bias.float() * scale)


def launch(
    x: Tensor,
    packed: tuple[Tensor, Tensor],
    out: Tensor,
    act: str,
    gate: Tensor | None,
    layout: str,
    fp16_accumulation: bool = False,
) -> None:
    """Launches a convolution on the current stream of x's device. Allocates nothing.

    out = span_gate(gate, conv(x)), or without a gate act(conv(x)), act "none" or "silu".
    x, gate, out: float16, dense, 16-byte aligned; out overlaps no input. layout "nc8hw8":
    (N, ceil(C / 8), H, W, 8), channels past C zero in all inputs, and then in out;
    "channels_last": (N, C, H, W) in that memory format, C a multiple of 8. At least one pixel.
    fp16_accumulation: accumulates 96 products in float16 and these sums in float32; needs nc8hw8
    and more than 24 channels. Less exact; faster where `machine.fp16_accumulation_pays`
    (docs/cuda.md).
    """
    layouts.check_fp16_accumulation("conv3x3", fp16_accumulation, len(packed[1]), layout)
    given = arguments(x, packed, out, act, gate)
    native.call("conv3x3", x, **given, layout=layout, fp16_accumulation=fp16_accumulation)


def arguments(
    x: Tensor, packed: tuple[Tensor, Tensor], out: Tensor, act: str, gate: Tensor | None
) -> dict[str, Any]:
    """The arguments that the launchers of both kernels share."""
    weights, biases = packed
    epilogue = act if gate is None else "gate"
    tensors = {"x": x, "weights": weights, "biases": biases, "gate": gate, "out": out}
    return tensors | {"epilogue": epilogue, "channels": len(biases)} | layouts.size(x)


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
    planes = layouts.to_nc8hw8(x)
    gate = None if gate is None else layouts.to_nc8hw8(gate)
    result = layouts.empty(planes, planes.shape)
    launch(planes, packed, result, act, gate, "nc8hw8")
    return out.copy_(layouts.from_nc8hw8(result, x.size(1)))
