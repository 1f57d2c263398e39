import torch
from torch import Tensor


def reference(x: Tensor, y: Tensor) -> Tensor:
    return (y + x) * (torch.sigmoid(y) - 0.5)
