"""Facts about the machine for a record, and its measured limits."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.timing import interleaved

ROOT = Path(__file__).resolve().parents[1]


def _said(*command: str) -> str | None:
    """The output of a command, or None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=ROOT)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    able = next((line.split() for line in lines if line.startswith("flags")), [])
    extras = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in able]
    return f"{name or platform.machine()} ({', '.join(extras) or 'no AVX2'})"


def facts(device: torch.device) -> dict:
    """Device, driver, clocks, versions, commit, date and load average."""
    on_gpu = device.type == "cuda"
    query = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
    nvcc = _said("nvcc", "--version") if shutil.which("nvcc") else None
    driver = _said("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    # Changed records do not affect measurements.
    code = ("--", ".", ":(exclude)bench/results")
    changed = _said("git", "status", "--porcelain", "--untracked-files=no", *code)
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "busy": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "driver": driver.splitlines()[0] if driver else None,
        "nvcc": nvcc.splitlines()[-1] if nvcc else None,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "python": platform.python_version(),
        "commit": (_said("git", "rev-parse", "--short=12", "HEAD") or "unknown")
        + ("+changes" if changed else ""),
        "date": time.strftime("%Y-%m-%d"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def limits(device: torch.device, seconds: float = 0.3) -> dict:
    """The machine's measured limits: FLOP/s of a matrix product, bytes/s of a copy.

    On a CPU a convolution of 256 channels may be faster: oneDNN computes it, and MKL the product,
    which in float32 reaches half of an AMD processor's rate. Uses random data, because zeros take
    less power and run faster.
    """
    n = 8192 if device.type == "cuda" else 1024
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if device.type == "cuda":
        dtypes["fp16"] = torch.float16
    work: dict[str, Callable[[], Tensor]] = {}
    flop: dict[str, int] = {}
    for name, dtype in dtypes.items():
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        work[name], flop[name] = partial(torch.mm, a, b), 2 * n**3
        if device.type == "cpu":
            x, weight = torch.randn(1, 256, 64, 64).to(dtype), torch.randn(256, 256, 3, 3).to(dtype)
            x, weight = (each.to(memory_format=torch.channels_last) for each in (x, weight))
            work[f"{name} convolution"] = partial(F.conv2d, x, weight, padding=1)
            flop[f"{name} convolution"] = 2 * weight.numel() * 64 * 64
    source = torch.randn((1 << 30 if device.type == "cuda" else 1 << 27) // 4, device=device)
    target = torch.empty_like(source)
    work["copy"] = lambda: target.copy_(source)
    timings = interleaved(work, device, seconds, replay=True)
    fastest = {name: t.q20 for name, t in timings.items() if not isinstance(t, str)}
    found: dict[str, float] = {}
    for name, t in fastest.items():
        if name != "copy":
            dtype = name.split()[0]
            found[dtype] = max(found.get(dtype, 0.0), flop[name] / t)
    if "copy" in fastest:
        found["copy"] = 2 * source.nbytes / fastest["copy"]
    return found
