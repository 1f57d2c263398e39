"""Arguments for conv9x9_head; tests and benchmarks use the same."""

import torch
from torch import Tensor

# (batch, out, height, width, uint8). Sizes: the kernel larger than the picture, 1xN, Nx1, across
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


def make(case, dtype: torch.dtype, device="cpu") -> tuple[Tensor, Tensor, Tensor]:
    n, cout, h, w, uint8 = case
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, 3, h, w), generator=generator, dtype=torch.uint8)
    weight = torch.randn(cout, 3, 9, 9, generator=generator, dtype=torch.float64) / 243**0.5
    bias = 2 * torch.randn(cout, generator=generator, dtype=torch.float64)
    x = x.to(device) if uint8 else (x / 255).to(device, dtype)
    return x, weight.to(device, dtype), bias.to(device, dtype)
