"""Sample arguments for tail, shared by tests and benchmarks."""

import torch

from espan_kernels.sampling import source

# (batch, channels, [(channels, kernel) of each input], scale, height, width, clamp, uint8): the
# tails of ESPAN, SPAN and SPAN-F; 1xN, Nx1, one pixel, across tiles of 8x16.
CASES = [
    (1, 32, [(32, 3), (32, 1), (32, 1)], 4, 20, 24, False, False),
    (1, 32, [(32, 3), (32, 1), (32, 1)], 4, 9, 17, False, True),
    (2, 28, [(28, 3), (28, 1), (28, 1), (28, 1)], 3, 1, 19, True, False),
    (1, 52, [(52, 3), (52, 1), (52, 1), (52, 1)], 2, 19, 1, False, False),
    (1, 32, [(3, 1), (32, 1), (32, 1)], 4, 5, 6, False, True),
    (1, 16, [(16, 3)], 2, 1, 1, False, False),
    (0, 32, [(32, 3), (32, 1), (32, 1)], 4, 4, 4, False, False),
]
# The CUDA kernel streams rows of strips of 60 columns and accumulates 3 output rows. Cases: ESPAN's
# and SPAN's tails, every scale, one and several strips and segments, any row alignment, padding.
CUDA = [
    (1, 32, [(32, 3), (32, 1), (32, 1)], 4, 9, 17, False, True),
    (1, 32, [(32, 3), (32, 1), (32, 1)], 4, 3, 64, False, False),
    (2, 28, [(28, 1), (28, 3), (28, 1), (28, 1)], 3, 2, 19, True, False),
    (1, 32, [(32, 3), (32, 1), (32, 1), (32, 1)], 2, 1, 67, False, True),
    (1, 25, [(25, 3), (25, 1), (25, 1)], 3, 11, 1, False, True),
    (1, 32, [(32, 3), (32, 1), (32, 1)], 2, 1, 1, True, False),
    (0, 32, [(32, 3), (32, 1), (32, 1)], 4, 4, 4, False, True),
]
# The wgmma kernel streams the same strips; it also supports the tail of SPAN-F.
WGMMA = [
    *CUDA,
    (1, 32, [(32, 1), (3, 1), (32, 1)], 4, 3, 65, False, True),
    (2, 28, [(28, 1), (3, 1), (28, 1)], 2, 5, 9, True, False),
]


def make(case, dtype: torch.dtype, device="cpu"):
    n, channels, inputs, scale, h, w, clamp, uint8 = case
    normal = source(dtype, device)
    xs = [normal(n, c, h, w) for c, _ in inputs]
    weights = [normal(channels, c, k, k) / (k * k * c * len(inputs)) ** 0.5 for c, k in inputs]
    # Large, to catch inner sums outside the image that are the bias instead of 0.
    bias, up_bias = 2 * normal(channels), normal(3 * scale**2)
    up_weight = normal(3 * scale**2, channels, 3, 3) / (9 * channels) ** 0.5
    return xs, weights, bias, up_weight, up_bias, scale, clamp, uint8
