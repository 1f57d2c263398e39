"""Poisoned memory with guard bands detects missing writes and writes out of bounds."""

from contextlib import contextmanager

import pytest
import torch

from espan_kernels import layout, machine
from tests.support.gpu import DEVICE, GPU

BAND = 64


def poison(dtype: torch.dtype):
    """The value of unwritten memory."""
    return float("nan") if dtype.is_floating_point else 171


def guarded(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(poisoned memory with the layout of `like`, the buffer with a guard band on both sides)"""
    span = 1 + sum((n - 1) * s for n, s in zip(like.shape, like.stride(), strict=True))
    size = (span if like.numel() else 0) + 2 * BAND
    buffer = torch.full((size,), poison(like.dtype), dtype=like.dtype, device=like.device)
    return buffer.as_strided(like.shape, like.stride(), BAND), buffer


def assert_bands(buffer: torch.Tensor) -> None:
    """Asserts that the guard bands are unchanged."""
    band = torch.cat([buffer[:BAND], buffer[-BAND:]])
    untouched = band.isnan() if band.is_floating_point() else band == poison(band.dtype)
    assert untouched.all()


# Every other element of an output's bands: a kernel that reads poison also writes poison, which
# would go unnoticed in bands of only poison.
MARK = {True: -1234.5, False: 85}


@contextmanager
def guarded_outputs():
    """Allocates kernel outputs poisoned, with guard bands that are checked at the end."""
    real, buffers = layout.empty, []

    def empty(*args, **kwargs):
        out, buffer = guarded(real(*args, **kwargs))
        for band in (buffer[:BAND], buffer[-BAND:]):
            band[::2] = MARK[band.is_floating_point()]
        buffers.append((buffer, [buffer[:BAND].clone(), buffer[-BAND:].clone()]))
        return out

    layout.empty = empty
    try:
        yield
    finally:
        layout.empty = real
    for buffer, before in buffers:
        for band, was in zip((buffer[:BAND], buffer[-BAND:]), before, strict=True):
            same = (band == was) | (band.isnan() & was.isnan())
            assert same.all(), "a kernel wrote outside of its output"


@pytest.fixture
def guard_bands():
    with guarded_outputs():
        yield


@pytest.fixture
def kernel_device():
    """Sets the default device to the kernels' device, and the seed. Skips without Triton."""
    if reason := machine.no_triton():
        pytest.skip(reason)
    torch.manual_seed(0)
    torch.set_default_device(DEVICE if GPU else None)
    yield
    torch.set_default_device(None)
