"""conv9x9_head in CUDA: packs the weight for the warps, converts layouts, launches the kernel."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native

CHANNELS = 32


def pack(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Packs a float16 weight (C, 3, 9, 9) and bias (C,), C 25 to 32, for `launch`; reusable."""
    return layouts.matrix_fragments(rows(weight)), F.pad(bias.float(), (0, CHANNELS - len(bias)))


def rows(weight: Tensor) -> Tensor:
    """(C, 3, 9, 9) as (9, 32, 32): one matrix per kernel row, which multiplies 27 inputs (9 pixels
    of 3 colours). Inputs and outputs are zero-padded to 32.
    """
    matrices = weight.permute(2, 0, 3, 1).flatten(2)
    return F.pad(matrices, (0, 5, 0, CHANNELS - len(weight)))


def launch(
    x: Tensor, x_layout: str, packed: tuple[Tensor, Tensor], out: Tensor, layout: str
) -> None:
    """Launches the convolution on the current stream of x's device. Allocates nothing.

    x: (N, 3, H, W) float16, or uint8, which is read as x / 255; dense, x_layout "contiguous" or
    "channels_last". out: float16, dense, 16-byte aligned; layout "nc8hw8": (N, 4, H, W, 8),
    channels past C become 0; "channels_last": (N, 32, H, W) in that memory format. At least one
    pixel.
    """
    native.call("conv9x9_head", x, **arguments(x, x_layout, packed, out), layout=layout)


def arguments(
    x: Tensor, x_layout: str, packed: tuple[Tensor, Tensor], out: Tensor
) -> dict[str, Any]:
    """The arguments that the launchers of both kernels share."""
    weights, biases = packed
    tensors = {"x": x, "weights": weights, "biases": biases, "out": out}
    return tensors | {"dtype": x.dtype, "x_layout": x_layout} | layouts.size(x)


def dense(x: Tensor) -> tuple[Tensor, str]:
    """(x, its layout), copied if it is neither channels_last nor contiguous."""
    if layouts.is_channels_last(x):
        return x, "channels_last"
    return x.contiguous(), "contiguous"


def conv9x9_head(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    n, _, h, w = x.shape
    channels = len(weight)
    out = layouts.empty(x, (n, channels, h, w), weight.dtype)
    if not out.numel():
        return out
    packed = pack(weight, bias)
    x, x_layout = dense(x)
    if layouts.is_channels_last(out) and channels == CHANNELS:
        launch(x, x_layout, packed, out, "channels_last")
        return out
    planes = layouts.empty(bias, (n, CHANNELS // layouts.PLANE, h, w, layouts.PLANE))
    launch(x, x_layout, packed, planes, "nc8hw8")
    return out.copy_(layouts.from_nc8hw8(planes, channels))
