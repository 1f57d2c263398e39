"""The definition of conv3x3 in eager PyTorch."""

import torch.nn.functional as F
from torch import Tensor

from espan_kernels.convolution import conv2d
from espan_kernels.span_gate.reference import reference as span_gate


def reference(x: Tensor, weight: Tensor, bias: Tensor, act: str, gate: Tensor | None) -> Tensor:
    out = conv2d(x, weight, bias, padding=1)
    if gate is not None:
        return span_gate(gate, out)
    return F.silu(out) if act == "silu" else out
