"""What this machine offers: versions, devices and backends, and the reason for what is missing."""

import importlib.metadata
import os
import platform
import shutil

import torch

import espan
import espan_kernels
from espan import memory
from espan.machine import cpu_has_bf16, pick_device, pick_dtype


def examine() -> dict[str, str | list[str]]:
    """Facts by name, in the order in which to print them; "kernels" has a line for each."""
    device = pick_device("auto")
    facts = {
        "espan": espan.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    }
    for package in ("torch", "triton", "numpy", "pillow", "safetensors"):
        facts[package] = _version(package)
    free = memory.available()
    bf16 = "bf16 in hardware" if cpu_has_bf16() else "no bf16 in hardware"
    facts["cpu"] = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads used, {bf16}"
    facts["memory"] = "unknown" if free is None else f"{free / 2**30:.1f} GiB free"
    facts["gpu"] = _gpus()
    facts["nvcc"] = shutil.which("nvcc") or "not on PATH"
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    facts["auto"] = f"device {device}, {dtype}"
    facts["kernels"] = espan_kernels.explain(device.type).splitlines()
    return facts


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _gpus() -> str:
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    if torch.version.cuda is None:
        return f"none: this torch ({torch.__version__}) is built without CUDA"
    return "none: torch finds no CUDA device or driver"
