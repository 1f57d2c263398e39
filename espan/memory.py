"""How much memory there is, how much a run will take, and what running out of it looks like."""

from pathlib import Path

import torch

# Bytes a network holds at once per input pixel and channel in float32, scratch included: measured
# 1.5 kB per pixel for 32 channels on a CPU (docs/performance.md).
BYTES_PER_CHANNEL = 52


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


def for_pixels(pixels: int, channels: int) -> int:
    """Bytes a network of so many channels needs to run on so many input pixels in float32."""
    return pixels * channels * BYTES_PER_CHANNEL


def ran_out(error: BaseException) -> bool:
    """Whether `error` is an allocation that failed, on a GPU or on the host."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
