"""What every test starts from: Triton's interpreter where there is no GPU, and its fixtures."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Before anything imports triton, which reads it once.
    os.environ["TRITON_INTERPRET"] = "1"

from tests.guards import guard_bands, kernel_device

__all__ = ["guard_bands", "kernel_device"]


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="torch.cuda.is_available() is False")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)
