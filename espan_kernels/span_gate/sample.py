"""Arguments for span_gate; tests and benchmarks use the same."""

import torch
from torch import Tensor

# One pixel, one row, one column, odd sizes across the block of 1024, a batch, an empty batch.
CASES = [(1, 32, 20, 24), (1, 1, 1, 1), (1, 4, 1, 67), (2, 3, 67, 1), (3, 5, 13, 11), (0, 8, 4, 4)]


def make(shape, dtype: torch.dtype, device="cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = 3 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return x.to(device, dtype), y.to(device, dtype)


def make_backward(shape, dtype: torch.dtype, device="cpu") -> tuple[Tensor, Tensor, Tensor]:
    x, y = make(shape, dtype, device)
    return x + y, x, y
