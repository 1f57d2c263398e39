"""tail in CUDA: packs the weights for the warps, converts layouts and launches the kernel."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native

CHANNELS = 32
Packed = tuple[Tensor, Tensor, Tensor, Tensor]


def pack(weights: Sequence[Tensor], bias: Tensor, up_weight: Tensor, up_bias: Tensor) -> Packed:
    """Packs the weights of a tail for `launch`; reusable.

    weights: one (C, C, 3, 3), then two or three (C, C, 1, 1); bias (C,), up_weight
    (3 * scale^2, C, 3, 3), up_bias; float16, C 25 to 32.
    """
    pad = CHANNELS - len(bias)
    outputs = -(-len(up_bias) // 16) * 16
    fill = (0, pad, 0, pad)
    wide = F.pad(_taps(weights[0]), fill)
    # Lane q of 4 loads channels (q, k, j, i) of its pixel: inputs (k, j, q, i) of the product.
    single = F.pad(torch.cat([_taps(weight) for weight in weights[1:]]), fill)
    by_lane = single.reshape(-1, CHANNELS, 4, 2, 2, 2).permute(0, 1, 3, 4, 2, 5)
    single = torch.stack([layouts.matrix_fragments(one[None]) for one in by_lane.flatten(2)])
    up = F.pad(_taps(up_weight), (0, pad, 0, outputs - len(up_bias)))
    biases = (
        F.pad(bias.float(), (0, pad)),
        F.pad(up_bias.float(), (0, outputs - len(up_bias))),
    )
    return (
        layouts.matrix_fragments(wide),
        single,
        layouts.matrix_fragments(up),
        torch.cat(biases),
    )


def _taps(weight: Tensor) -> Tensor:
    """(out, in, k, k) as (k * k, out, in)."""
    return weight.flatten(2).permute(2, 0, 1)


def order(weights: Sequence[Tensor]) -> list[int]:
    """The indices of the weights, the 3x3 convolution first."""
    return sorted(range(len(weights)), key=lambda i: -weights[i].shape[-1])


def launch(
    inputs: Sequence[Tensor],
    layout: str,
    packed: Packed,
    out: Tensor,
    out_layout: str,
    scale: int,
    clamp: bool,
) -> None:
    """Launches a tail on the current stream of its inputs' device. Allocates nothing.

    inputs: in the order of the weights in `pack`, the 3x3 convolution's first; float16, dense,
    16-byte aligned. layout "nc8hw8": (N, 4, H, W, 8), values past C finite; "channels_last":
    (N, 32, H, W) in that memory format. out: (N, 3, scale * H, scale * W), float16, or uint8,
    clamped and rounded; dense, 16-byte aligned, overlapping no input; out_layout "contiguous" or
    "channels_last". At least one pixel.
    """
    weights, single_weights, up_weights, biases = packed
    packing = {"weights": weights, "single_weights": single_weights, "up_weights": up_weights}
    shared = arguments(inputs, out, out_layout, scale, clamp)
    native.call("tail", inputs[0], **shared, **packing, biases=biases, layout=layout)


def arguments(
    inputs: Sequence[Tensor], out: Tensor, out_layout: str, scale: int, clamp: bool
) -> dict[str, Any]:
    """The arguments that the launchers of both kernels share."""
    x, single0, single1, *third = inputs
    singles = {"single0": single0, "single1": single1, "single2": third[0] if third else None}
    ends = {"out": out, "dtype": out.dtype, "out_layout": out_layout, "clamp": clamp}
    return singles | ends | {"x": x, "singles": len(inputs) - 1, "scale": scale} | layouts.size(x)


def result(inputs: list[Tensor], bias: Tensor, scale: int, uint8: bool) -> tuple[Tensor, str]:
    """(the allocated output of a tail, its layout)."""
    n, _, h, w = inputs[0].shape
    dtype = torch.uint8 if uint8 else bias.dtype
    out = layouts.empty(inputs[0], (n, 3, scale * h, scale * w), dtype)
    return out, "channels_last" if layouts.is_channels_last(out) else "contiguous"


def tail(
    inputs: list[Tensor],
    weights: list[Tensor],
    bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    scale: int,
    clamp: bool,
    uint8: bool,
) -> Tensor:
    out, out_layout = result(inputs, bias, scale, uint8)
    if not out.numel():
        return out
    first = order(weights)
    packed = pack([weights[i] for i in first], bias, up_weight, up_bias)
    if layouts.is_channels_last(inputs[0]) and len(bias) == CHANNELS:
        layout, features = "channels_last", layouts.laid_out_as(inputs[0], *inputs)
    else:
        layout, features = "nc8hw8", [layouts.to_nc8hw8(x) for x in inputs]
    launch([features[i] for i in first], layout, packed, out, out_layout, scale, clamp)
    return out
