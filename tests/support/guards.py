"""Poisoned memory between guard bands: what is not written, or is written outside, shows."""

from contextlib import contextmanager

import pytest
import torch

from espan_kernels import layout, machine
from tests.support.gpu import DEVICE, GPU

BAND = 64


def poison(dtype: torch.dtype):
    """What memory nobody has written holds."""
    return float("nan") if dtype.is_floating_point else 171


def guarded(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(poisoned memory laid out as `like`, the buffer around it with a band on both sides)"""
    span = 1 + sum((n - 1) * s for n, s in zip(like.shape, like.stride(), strict=True))
    size = (span if like.numel() else 0) + 2 * BAND
    buffer = torch.full((size,), poison(like.dtype), dtype=like.dtype, device=like.device)
    return buffer.as_strided(like.shape, like.stride(), BAND), buffer


def assert_bands(buffer: torch.Tensor) -> None:
    """What lies before and behind is still poison."""
    band = torch.cat([buffer[:BAND], buffer[-BAND:]])
    untouched = band.isnan() if band.is_floating_point() else band == poison(band.dtype)
    assert untouched.all()


# Every other element of an output's bands: a kernel that reads poison writes poison, which would
# not show where there is nothing else.
MARK = {True: -1234.5, False: 85}


@contextmanager
def guarded_outputs():
    """Kernels' outputs come poisoned and between bands that must be as they were at the end."""
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
    """Tensors that name no device are where kernels run; one seed. Skips without Triton."""
    if reason := machine.no_triton():
        pytest.skip(reason)
    torch.manual_seed(0)
    torch.set_default_device(DEVICE if GPU else None)
    yield
    torch.set_default_device(None)
