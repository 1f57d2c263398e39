"""Sample arguments for conv3x3, shared by tests and benchmarks."""

import torch

from espan_kernels.sampling import source

# (batch, in, out, height, width, epilogue). Channels: 1, 3 of images, 32 of ESPAN, 28, 48 and 52 of
# SPAN, and 64: at and between powers of two. Sizes: inside an 8x16 tile, 1xN, Nx1, several tiles.
CASES = [
    (1, 32, 32, 20, 24, "gate"),
    (1, 32, 32, 1, 1, "silu"),
    (1, 3, 28, 1, 67, "none"),
    (2, 28, 28, 67, 1, "gate"),
    (1, 48, 48, 9, 17, "silu"),
    (2, 52, 64, 8, 16, "none"),
    (1, 64, 48, 7, 5, "silu"),
    (1, 1, 2, 19, 33, "none"),
    (0, 32, 32, 4, 4, "gate"),
]
# The CUDA kernel streams rows of strips of 64 or 128 columns and accumulates 3 output rows. Cases:
# every epilogue, one and several strips, one pixel, row and column, a batch, every channel count.
CUDA = [
    (1, 32, 32, 20, 24, "gate"),
    (1, 32, 32, 1, 1, "silu"),
    (2, 32, 32, 1, 129, "none"),
    (1, 32, 32, 9, 130, "gate"),
    (1, 32, 32, 17, 1, "silu"),
    (0, 32, 32, 4, 4, "gate"),
    (1, 24, 24, 4, 9, "gate"),
    (1, 28, 28, 4, 130, "none"),
    (1, 40, 40, 5, 129, "silu"),
    (2, 48, 48, 2, 7, "gate"),
    (1, 52, 52, 4, 65, "none"),
    (1, 64, 64, 3, 66, "gate"),
]


def make(case, dtype: torch.dtype, device="cpu"):
    n, cin, cout, h, w, epilogue = case
    normal = source(dtype, device)
    x = normal(n, cin, h, w)
    weight = normal(cout, cin, 3, 3) / (9 * cin) ** 0.5
    # Large biases expose padding with anything other than 0.
    bias = 2 * normal(cout)
    gate = normal(n, cout, h, w) if epilogue == "gate" else None
    return x, weight, bias, "silu" if epilogue == "silu" else "none", gate
