"""Sample arguments for dct2 and dct_l1, shared by tests and benchmarks."""

import torch
from torch import Tensor

from espan_kernels.sampling import source

# (shape, block). One tile of 16 and 32, full and partial; blocks whose last tile of 32 is partial;
# sides above 32, transformed by two matrix products in tiles of 64; an empty batch.
CASES = [
    ((2, 3, 32, 32), None),
    ((2, 8, 8), None),
    ((3, 11, 17), None),
    ((64, 48), None),
    ((1, 2, 24, 40), 8),
    ((36, 4), 4),
    ((2, 16, 48), 16),
    ((32, 64), 32),
    ((2, 67, 9), None),
    ((1, 3, 72, 96), None),
    ((0, 3, 16, 16), None),
]
INVERSE = [(*case, True) for case in CASES[:6]] + [((66, 70), None, True)]


def make(case, dtype: torch.dtype, device="cpu"):
    shape, block, inverse = case if len(case) == 3 else (*case, False)
    return source(dtype, device)(*shape), block, inverse


def make_l1(case, dtype: torch.dtype, device="cpu") -> tuple[Tensor, Tensor, int | None, bool]:
    shape, block = case
    normal = source(dtype, device)
    return normal(*shape), normal(*shape), block, True
