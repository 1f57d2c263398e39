"""The SPAN attention gate in eager PyTorch: its definition."""

import torch
from torch import Tensor


def reference(x: Tensor, y: Tensor) -> Tensor:
    return (y + x) * (torch.sigmoid(y) - 0.5)


def reference_backward(grad: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of (x, y), given that of the output."""
    s = torch.sigmoid(y)
    return grad * (s - 0.5), grad * (s - 0.5 + (y + x) * s * (1 - s))
