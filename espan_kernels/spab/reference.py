"""The definition of spab in eager PyTorch."""

from typing import Sequence  # noqa: UP035 (torch 2.6 infers no schema from collections.abc)

import torch.nn.functional as F
from torch import Tensor

from espan_kernels.convolution import conv2d
from espan_kernels.span_gate.reference import reference as span_gate


def reference(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    h = x
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h = F.silu(conv2d(h, weight, bias, padding=1))
    return span_gate(x, conv2d(h, weights[-1], biases[-1], padding=1))
