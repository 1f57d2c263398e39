"""How much memory there is, how much a run will take, and what running out of it looks like."""

import time
from pathlib import Path

import torch

# Seconds for which the system's answer is believed, by needs of less than this share of it: asking
# takes as long as everything else that a call does on the host (docs/performance.md).
FRESH, SMALL = 1.0, 1 / 16
_left, _until = 0.0, 0.0

# Numbers that a network run by PyTorch's own operators holds at once per input pixel and channel:
# near the most that was measured on a CPU, at 480 x 480. What the allocator keeps between operators
# is in it: more in one run than in the next, less for larger pictures (docs/performance.md).
PER_CHANNEL = 15


def available() -> int | None:
    """Bytes of host memory a process may still take, or None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line), None)
    group = Path("/sys/fs/cgroup")
    try:  # a container's own limit
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Files read long ago count as used, but go when memory is wanted.
        left = int(limit) - used + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return free
    return left if free is None else min(free, left)


def missing(need: int) -> int | None:
    """None if `need` bytes of host memory are free, as far as the system tells; else what is free.

    What was granted since the system was asked is taken off its answer.
    """
    global _left, _until
    now = time.monotonic()
    if now >= _until or need > SMALL * _left:
        free = available()
        if free is None or need > free:
            return free
        _left, _until = free, now + FRESH
    _left -= need
    return None


def total() -> int | None:
    """Bytes of host memory that a process may have at most, or None where nobody tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        most = next(int(line.split()[1]) * 1024 for line in lines if "MemTotal" in line)
    except (OSError, StopIteration):
        return None
    try:
        return min(most, int((Path("/sys/fs/cgroup") / "memory.max").read_text()))
    except (OSError, ValueError):
        return most


def free_on(device: torch.device) -> int | None:
    """Bytes of a GPU's own memory that are free; None elsewhere."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def for_pixels(pixels: int, channels: int, dtype: torch.dtype) -> int:
    """Bytes PyTorch's own operators need, at most, for a network of so many channels."""
    return pixels * channels * PER_CHANNEL * dtype.itemsize


# What an allocation that failed says where its error has no type of its own.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "MPS backend out of memory",
    "cudaErrorMemoryAllocation",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# What says that work on a GPU failed; from then on everything there fails.
LOST = ("CUDA error", "cudaError", "CUBLAS_STATUS", "CUDNN_STATUS", "device-side assert")
# Unless it was refused before anything ran.
HARMLESS = (
    "CUDNN_STATUS_NOT_SUPPORTED",
    "CUDNN_STATUS_BAD_PARAM",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDA error: invalid argument",
)


def ran_out(error: BaseException) -> bool:
    """Whether `error` is an allocation that failed, on a GPU or on the host."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in OUT_OF_MEMORY)
    )


def lost(error: BaseException) -> bool:
    """Whether `error` comes of a GPU that this process cannot use again."""
    if ran_out(error) or not isinstance(error, RuntimeError):
        return False
    if any(each in str(error) for each in HARMLESS):
        return False
    accelerator = getattr(torch, "AcceleratorError", ())  # torch 2.8 and later
    return isinstance(error, accelerator) or any(each in str(error) for each in LOST)
