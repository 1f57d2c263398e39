"""Sample arguments for spab, shared by tests and benchmarks."""

import torch
from torch import Tensor

from espan_kernels.sampling import source

# (batch, channels, convs, height, width): ESPAN's blocks of 3 and 2 convs, SPAN's channels;
# images smaller than a block's halo of 3 pixels, 1xN, Nx1, across tiles of 8x16.
CASES = [
    (1, 32, 3, 20, 24),
    (1, 32, 2, 1, 1),
    (2, 28, 3, 2, 37),
    (1, 48, 3, 19, 1),
    (1, 52, 2, 9, 17),
    (0, 32, 3, 4, 4),
]
# The CUDA kernel streams rows of strips of 60 (3 convs) or 94 columns (2 convs) and accumulates 3
# output rows. Cases: one and several strips and segments, one pixel, row and column, a batch, every
# number of planes with and without padding (above 32 channels: one kernel per conv).
CUDA = [
    (1, 32, 3, 20, 24),
    (1, 32, 2, 1, 1),
    (1, 32, 3, 1, 61),
    (2, 32, 2, 9, 95),
    (1, 32, 3, 17, 1),
    (0, 32, 3, 4, 4),
    (1, 24, 3, 7, 62),
    (2, 28, 2, 3, 5),
    (1, 40, 3, 4, 9),
    (1, 48, 3, 5, 130),
    (1, 52, 2, 4, 65),
    (2, 64, 3, 3, 66),
]


def make(case, dtype: torch.dtype, device="cpu") -> tuple[Tensor, list[Tensor], list[Tensor]]:
    n, channels, convs, h, w = case
    normal = source(dtype, device)
    x = normal(n, channels, h, w)
    weights = [normal(channels, channels, 3, 3) / (9 * channels) ** 0.5 for _ in range(convs)]
    # Large biases: outside the image, hidden features must be 0 and not silu(bias).
    return x, weights, [2 * normal(channels) for _ in range(convs)]
