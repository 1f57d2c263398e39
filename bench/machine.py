"""Facts about the machine for a record, and its measured limits."""

import os
import platform
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path

import torch

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

    Uses random data, because zeros take less power and run faster.
    """
    n = 8192 if device.type == "cuda" else 1024
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if device.type == "cuda":
        dtypes["fp16"] = torch.float16
    work = {}
    for name, dtype in dtypes.items():
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        work[name] = lambda a=a, b=b: torch.mm(a, b)
    source = torch.randn((1 << 30 if device.type == "cuda" else 1 << 27) // 4, device=device)
    target = torch.empty_like(source)
    work["copy"] = lambda: target.copy_(source)
    timings = interleaved(work, device, seconds, replay=True)
    fastest = {name: t.q20 for name, t in timings.items() if not isinstance(t, str)}
    found = {name: 2 * n**3 / t for name, t in fastest.items() if name != "copy"}
    if "copy" in fastest:
        found["copy"] = 2 * source.nbytes / fastest["copy"]
    return found
