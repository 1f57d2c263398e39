"""Sparse memory of gigabytes, for addresses past 2^31 elements; only touched pages take memory."""

import mmap
import sys

import pytest
import torch

NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # named since Python 3.13


def sparse(elements: int, dtype: torch.dtype) -> torch.Tensor:
    """(elements,) zeros; the system allocates pages on write."""
    if sys.platform != "linux":
        pytest.skip("memory without pages is made by Linux's mmap")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
    try:
        memory = mmap.mmap(-1, elements * dtype.itemsize, flags=flags)
    except OSError as error:
        pytest.skip(f"no {elements * dtype.itemsize >> 30} GiB of addresses: {error}")
    return torch.frombuffer(memory, dtype=torch.uint8).view(dtype)


def spread(t: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """The same values with the given strides."""
    span = 1 + sum((n - 1) * s for n, s in zip(t.shape, stride, strict=True))
    out = sparse(span, t.dtype).as_strided(t.shape, stride)
    return out.copy_(t)
