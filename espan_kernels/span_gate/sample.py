"""Sample arguments for span_gate, shared by tests and benchmarks."""

import torch
from torch import Tensor

from espan_kernels.sampling import source

# One pixel, one row, one column, odd sizes across the block of 1024, a batch, an empty batch.
CASES = [(1, 32, 20, 24), (1, 1, 1, 1), (1, 4, 1, 67), (2, 3, 67, 1), (3, 5, 13, 11), (0, 8, 4, 4)]


def make(shape, dtype: torch.dtype, device="cpu") -> tuple[Tensor, Tensor]:
    normal = source(dtype, device)
    return 3 * normal(*shape), 3 * normal(*shape)


def make_backward(shape, dtype: torch.dtype, device="cpu") -> tuple[Tensor, Tensor, Tensor]:
    x, y = make(shape, dtype, device)
    return x + y, x, y
