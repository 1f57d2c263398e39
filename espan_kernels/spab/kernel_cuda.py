"""The CUDA kernel's door: weights as its warps hold them, pictures in a layout it reads."""

import torch
from torch import Tensor

from espan_kernels import layout, native


def spab(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    out = layout.empty(x, x.shape)
    if not out.numel():
        return out
    # The last convolution halved: the gate is computed from half of its output.
    packed = torch.stack([layout.fragments(w) for w in (*weights[:-1], weights[-1] / 2)])
    bias = torch.stack([b.float() for b in (*biases[:-1], biases[-1] / 2)])
    n, channels, h, w = x.shape
    shape = len(weights), n, h, w
    if layout.is_channels_last(out):
        (x,) = layout.laid_out_as(out, x)
        native.call("spab", x, x, packed, bias, out, *shape, "channels_last")
        return out
    planes = layout.to_planes(x)
    out = layout.empty(planes, planes.shape)
    native.call("spab", x, planes, packed, bias, out, *shape, "planes")
    return layout.from_planes(out, channels)
