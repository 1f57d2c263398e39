"""The definition of tail in eager PyTorch."""

from typing import Sequence  # noqa: UP035 (torch 2.6 infers no schema from collections.abc)

import torch
import torch.nn.functional as F
from torch import Tensor

from espan_kernels.convolution import conv2d


def reference(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    scale: int,
    clamp: bool,
    uint8: bool,
) -> Tensor:
    h = conv2d(inputs[0], weights[0], bias, padding=weights[0].shape[-1] // 2)
    for x, weight in zip(inputs[1:], weights[1:], strict=True):
        h = h + conv2d(x, weight, padding=weight.shape[-1] // 2)
    out = F.pixel_shuffle(conv2d(h, up_weight, up_bias, padding=1), scale)
    if clamp or uint8:
        out = out.clamp(0, 1)
    if uint8:
        # At least float32: near 255, float16 has a resolution of only 1/8.
        wide = out.to(torch.promote_types(out.dtype, torch.float32))
        out = (wide * 255).round().to(torch.uint8)
    return out
