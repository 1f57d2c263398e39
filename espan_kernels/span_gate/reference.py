"""The definition of span_gate in eager PyTorch."""

import torch
from torch import Tensor


def reference(x: Tensor, y: Tensor) -> Tensor:
    return (y + x) * (torch.sigmoid(y) - 0.5)


def reference_backward(grad: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and y from the output's gradient."""
    s = torch.sigmoid(y)
    return grad * (s - 0.5), grad * (s - 0.5 + (y + x) * s * (1 - s))
