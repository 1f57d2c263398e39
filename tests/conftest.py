"""What every test starts from: kernels that run without a GPU, seeds, poisoned memory."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Before anything imports triton, which reads it once.
    os.environ["TRITON_INTERPRET"] = "1"

from espan_kernels import layout, native
from tests import shim as host

BAND = 64


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="torch.cuda.is_available() is False")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def shim_objects(tmp_path_factory):
    """csrc compiled for the CPU."""
    if reason := host.missing():
        pytest.skip(reason)
    return host.objects(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def shim_module(shim_objects, tmp_path_factory):
    return host.load(shim_objects, tmp_path_factory.mktemp("shim"))


@pytest.fixture
def shim(request, monkeypatch):
    """impl="cuda" runs: on the GPU, or in the host build where there is none."""
    if not torch.cuda.is_available():
        module = request.getfixturevalue("shim_module")
        module.seed(0)
        monkeypatch.setattr(native, "MODULE", module)
        monkeypatch.setattr(native, "REASON", None)
        monkeypatch.setattr(native, "DEVICE", module.DEVICE)


def poison(dtype: torch.dtype):
    """What memory nobody has written holds."""
    return float("nan") if dtype.is_floating_point else 171


def guarded(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(poisoned memory laid out as `like`, the buffer around it with a band on both sides)"""
    span = 1 + sum((n - 1) * s for n, s in zip(like.shape, like.stride(), strict=True))
    size = (span if like.numel() else 0) + 2 * BAND
    buffer = torch.full((size,), poison(like.dtype), dtype=like.dtype, device=like.device)
    return buffer.as_strided(like.shape, like.stride(), BAND), buffer


@pytest.fixture
def guard_bands(monkeypatch):
    """Kernels' outputs come poisoned and between bands that must still be poison at the end."""
    real, buffers = layout.empty, []

    def empty(*args, **kwargs):
        out, buffer = guarded(real(*args, **kwargs))
        buffers.append(buffer)
        return out

    monkeypatch.setattr(layout, "empty", empty)
    yield
    for buffer in buffers:
        band = torch.cat([buffer[:BAND], buffer[-BAND:]])
        untouched = band.isnan() if band.is_floating_point() else band == poison(band.dtype)
        assert untouched.all(), "a kernel wrote outside of its output"
