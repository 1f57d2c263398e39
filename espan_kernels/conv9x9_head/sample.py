"""Sample arguments for conv9x9_head, shared by tests and benchmarks."""

import torch
from torch import Tensor

from espan_kernels.sampling import source

# (batch, out, height, width, uint8). Sizes: the kernel larger than the image, 1xN, Nx1, across
# tiles of 8x16; channels on both sides of a power of two.
CASES = [
    (1, 32, 20, 24, False),
    (1, 32, 20, 24, True),
    (1, 4, 1, 1, False),
    (2, 28, 1, 35, False),
    (1, 48, 19, 1, True),
    (1, 64, 9, 17, False),
    (0, 32, 4, 4, False),
]
# The CUDA kernel streams rows of strips of 16 columns and accumulates 9 output rows. Cases: one and
# several strips and segments, one pixel, row and column, a batch, padded channels.
CUDA = [
    (1, 32, 20, 24, False),
    (1, 32, 7, 67, True),
    (2, 28, 3, 16, False),
    (1, 32, 1, 1, True),
    (1, 25, 1, 35, True),
    (1, 32, 67, 1, False),
    (0, 32, 4, 4, True),
]


def make(case, dtype: torch.dtype, device="cpu") -> tuple[Tensor, Tensor, Tensor]:
    n, cout, h, w, uint8 = case
    normal = source(dtype, device)
    image = (40 * normal(n, 3, h, w) + 128).clamp(0, 255)
    weight, bias = normal(cout, 3, 9, 9) / 243**0.5, 2 * normal(cout)
    return image.to(torch.uint8) if uint8 else image / 255, weight, bias
