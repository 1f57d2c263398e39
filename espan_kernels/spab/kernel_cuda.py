"""spab in CUDA: packs the weights for the warps, converts layouts and launches the kernels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native


def pack(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Packs a block's 2 or 3 float16 weights (C, C, 3, 3) and biases (C,) for `launch`; reusable.

    They are halved: SiLU and the gate are computed from half of a convolution.
    """
    fragments = [layouts.fragments(weight / 2) for weight in weights]
    floats = [layouts.padded(bias.float()) / 2 for bias in biases]
    return torch.stack(fragments), torch.stack(floats)


def launch(
    x: Tensor,
    packed: tuple[Tensor, Tensor],
    out: Tensor,
    layout: str,
    scratch: Tensor | None = None,
    fp16_accumulation: bool = False,
) -> None:
    """Launches a block on the current stream of x's device: out = spab(x). Allocates nothing.

    x, out: float16, dense, 16-byte aligned, not overlapping. layout "nc8hw8":
    (N, ceil(C / 8), H, W, 8), channels past C zero in x, and then in out; "channels_last":
    (N, C, H, W) in that memory format, C a multiple of 8. At least one pixel.
    scratch: like out, for hidden feature maps; needed only above 32 channels.
    fp16_accumulation: see conv3x3's `launch`.
    """
    layouts.check_fp16_accumulation("spab", fp16_accumulation, packed[1].shape[1], layout)
    given = arguments(x, packed, out, scratch)
    native.call("spab", x, **given, layout=layout, fp16_accumulation=fp16_accumulation)


def arguments(
    x: Tensor, packed: tuple[Tensor, Tensor], out: Tensor, scratch: Tensor | None
) -> dict[str, Any]:
    """The arguments that the launchers of both kernels share."""
    weights, biases = packed
    convs, channels = biases.shape
    if scratch is None and channels > 32:
        raise ValueError(f"spab: scratch: expected memory for {channels} channels, got None")
    tensors = {"x": x, "weights": weights, "biases": biases, "scratch": scratch, "out": out}
    return tensors | {"convs": convs, "channels": channels} | layouts.size(x)


def spab(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    out = layouts.empty(x, x.shape)
    if not out.numel():
        return out
    packed = pack(weights, biases)
    if layouts.is_channels_last(out) and x.size(1) % layouts.PLANE == 0:
        (x,) = layouts.laid_out_as(out, x)
        launch(x, packed, out, "channels_last", layouts.empty(out, out.shape))
        return out
    planes = layouts.to_nc8hw8(x)
    result, scratch = (layouts.empty(planes, planes.shape) for _ in range(2))
    launch(planes, packed, result, "nc8hw8", scratch)
    return out.copy_(layouts.from_nc8hw8(result, x.size(1)))
