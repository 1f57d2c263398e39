"""Random tensors for the ops' sample arguments, identical on every device."""

from collections.abc import Callable

import torch
from torch import Tensor


def source(dtype: torch.dtype, device) -> Callable[..., Tensor]:
    """Returns `normal(*shape)`, which draws from one fixed sequence of normal numbers."""
    generator = torch.Generator("cpu").manual_seed(0)

    def normal(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        return x.to(device, dtype)

    return normal
