"""Memory: how much is free, how much a network needs, and which errors mean out of memory."""

import time
from pathlib import Path

import torch

from espan.errors import DeviceLostError

# Free memory is cached for FRESH seconds, for needs below the share SMALL of it: querying it takes
# as long as the rest of a call on the host (docs/performance.md).
FRESH, SMALL = 1.0, 1 / 16
_left, _until = 0.0, 0.0

# Most values in memory per input pixel and channel while PyTorch's operators run a network, close
# to the maximum measured on a CPU at 480 x 480. Includes memory that the allocator keeps between
# operators, which varies from run to run and is less for larger images (docs/performance.md).
PER_CHANNEL = 15


def available() -> int | None:
    """Bytes of host memory that are available to this process, or None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line), None)
    group = Path("/sys/fs/cgroup")
    try:  # the limit of a container
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Inactive file cache counts as used, but is reclaimed on demand.
        left = int(limit) - used + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return free
    return left if free is None else min(free, left)


def missing(need: int) -> int | None:
    """The free bytes of host memory if they are fewer than `need`; None if not, or if unknown.

    Subtracts the needs granted since the last query from the free memory.
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
    """Total bytes of host memory for this process, or None if unknown."""
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
    """Bytes of free memory on a GPU; None for other devices."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def for_pixels(pixels: int, channels: int, dtype: torch.dtype) -> int:
    """Upper bound of the bytes that PyTorch's operators need for a network of `channels`."""
    return pixels * channels * PER_CHANNEL * dtype.itemsize


# Texts of failed allocations whose error has no special type.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "MPS backend out of memory",
    "cudaErrorMemoryAllocation",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# Texts of errors after which all work on the GPU fails.
LOST = ("CUDA error", "cudaError", "CUBLAS_STATUS", "CUDNN_STATUS", "device-side assert")
# Exceptions to LOST: the call was rejected before anything ran.
HARMLESS = (
    "CUDNN_STATUS_NOT_SUPPORTED",
    "CUDNN_STATUS_BAD_PARAM",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDA error: invalid argument",
)


def ran_out(error: BaseException) -> bool:
    """Whether `error` is a failed allocation, on a GPU or on the host."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in OUT_OF_MEMORY)
    )


def lost(error: BaseException) -> bool:
    """Whether `error` means that this process cannot use the GPU again."""
    if ran_out(error) or not isinstance(error, RuntimeError):
        return False
    if any(each in str(error) for each in HARMLESS):
        return False
    accelerator = getattr(torch, "AcceleratorError", ())  # torch 2.8 and later
    return isinstance(error, accelerator) or any(each in str(error) for each in LOST)


def raise_if_lost(device: torch.device, error: BaseException) -> None:
    """Raises DeviceLostError, with the first words of `error`, if `lost(error)`."""
    if lost(error):
        raise DeviceLostError(
            f"{device}: the CUDA context is lost, only a new process can use it again: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
