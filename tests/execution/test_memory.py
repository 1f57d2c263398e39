"""Memory is bounded by the tile plus the pixels of the image."""

import json
import os
import subprocess
import sys

import pytest
import torch

from espan import ESPAN
from espan.backends.cpu import CpuNetwork
from espan.system import memory

# Peak memory of a whole process: a 12-megapixel result, then one of 48 megapixels.
MEASURE = """
import json
import numpy as np
import torch
import espan
from espan.execution import host_memory

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
    # Pixels of input and output, three bytes each, and some slack for the allocator.
    pixels = 3 * (1 + 16) * (2 * 866) ** 2
    assert second - first < pixels + 100 * 2**20


# Estimated and measured peak memory of an upscaler, in a new process.
AGREE = """
import json, os, sys
import numpy as np
import torch
import espan
from espan.execution import host_memory

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def measure(kind, dtype, size, options, factor=4):
    torch.set_num_threads(2)
    up = espan.Upscaler(getattr(espan, kind)(), device="cpu", dtype=dtype, **options)
    up(np.zeros((40, 40, 3), np.uint8))
    image = np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    need = host_memory.needed(up._runner, planes, tuple(factor * side for side in size), 0)
    open("/proc/self/clear_refs", "w").write("5")  # the peak is what it takes now
    before = memory("VmRSS")
    up(image, factor)
    return need, memory("VmHWM") - before

for case in json.loads(sys.argv[1]):
    if not (child := os.fork()):  # before torch has any threads
        print(json.dumps(measure(*case)), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
MEASURED = [
    ("ESPAN", "fp32", (600, 700), {}),  # four tiles
    ("ESPAN", "bf16", (640, 640), {"tile": None}),
    ("SPAN", "fp32", (480, 400), {}),
    ("SPAN", "bf16", (500, 600), {"tile": None}),
    ("SPANF", "bf16", (900, 500), {"tile": None}),
    ("SPAN", "bf16", (260, 300), {"tile": 64}, 16),  # two passes
    ("ESPAN", "fp32", (480, 480), {"backend": "eager"}),
    ("SPAN", "bf16", (480, 480), {"backend": "eager"}),
]


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs /proc")
def test_the_estimate_is_near_the_measured_peak():
    # The heap caches a varying number of feature maps below 32 MiB between operators. With
    # one mapping per feature map all runs take the same, about half of the allowed memory.
    ours = [case for case in MEASURED if "backend" not in case[3]]
    pytorchs = [case for case in MEASURED if "backend" in case[3]]
    for case, (need, took) in zip(ours, _said_and_taken(ours), strict=True):
        assert 0.8 < need / took < 1.2, f"{case}: {need >> 20} MiB said, {took >> 20} taken"
    for case, (need, took) in zip(pytorchs, _said_and_taken(pytorchs), strict=True):
        assert need / took > 0.8, f"{case}: {need >> 20} MiB said, {took >> 20} taken"
    mapped = _said_and_taken(pytorchs, MALLOC_MMAP_THRESHOLD_=str(2**20))
    for case, (need, took) in zip(pytorchs, mapped, strict=True):
        assert 1.5 < need / took < 2.2, f"{case}: {need >> 20} MiB said, {took >> 20} taken"


def _said_and_taken(cases, **environment: str) -> list[tuple[int, int]]:
    done = subprocess.run(
        [sys.executable, "-c", AGREE, json.dumps(cases)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_allocated_buffers_are_not_counted_again():
    net = CpuNetwork(ESPAN(channels=16, blocks=2))
    first = net.memory(1, 100, 120)
    maps = 16 * 102 * 120 * 4
    assert first > 5 * maps
    net(torch.zeros(1, 3, 100, 120))
    assert first - net.memory(1, 100, 120) > 4 * maps


def test_estimate_follows_pixels_channels_and_precision():
    one = memory.for_pixels(1000, 32, torch.float32)
    assert 1e6 < one < 4e6
    assert memory.for_pixels(2000, 64, torch.float32) == 4 * one
    assert memory.for_pixels(2000, 64, torch.bfloat16) == 2 * one


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_available_is_a_number_of_bytes():
    assert 2**20 < memory.available() < 2**50


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("The size of tensor a (3) must match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_errors_are_recognised(error, expected):
    assert memory.ran_out(error) is expected
    assert memory.lost(error) is ("illegal" in str(error))


def test_real_allocation_failure_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.ran_out(caught.value)
