"""Memory: bounded by the tile, and what a picture four times larger adds."""

import json
import subprocess
import sys

import pytest
import torch

from espan import memory

# Peak memory of a whole process: a 12-megapixel result, then one of 48 megapixels.
MEASURE = """
import json
import numpy as np
import torch
import espan

def peak():
    # Not ru_maxrss: a new process inherits its parent's.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

torch.set_num_threads(2)
torch.manual_seed(0)
up = espan.Upscaler(espan.ESPAN(), device="cpu", dtype="fp32")
image = np.random.default_rng(0).integers(256, size=(866, 866, 3), dtype=np.uint8)
before = peak()
up(image)
first = peak()
up._runner._forward = lambda x, dtype: x.new_zeros(1, 3, *(4 * side for side in x.shape[2:]))
image = np.zeros((2 * 866, 2 * 866, 3), np.uint8)
up(image)
print(json.dumps([before, first, peak()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_twelve_megapixels_and_four_times_more():
    result = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    before, first, second = json.loads(result.stdout)
    assert before < first < 1.5 * 2**30
    # Its own pixels: in and out, three bytes each. Some slack for the allocator.
    pixels = 3 * (1 + 16) * (2 * 866) ** 2
    assert second - first < pixels + 100 * 2**20


def test_estimate_follows_pixels_and_channels():
    one = memory.for_pixels(1000, 32)
    assert 1e6 < one < 4e6
    assert memory.for_pixels(2000, 64) == 4 * one


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_available_is_a_number_of_bytes():
    assert 2**20 < memory.available() < 2**50


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_running_out_looks_like(error, expected):
    assert memory.ran_out(error) is expected


def test_real_allocation_failure_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.ran_out(caught.value)
