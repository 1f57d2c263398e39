"""Collects versions, devices, backends and their speed, and the reasons for what is missing."""

import importlib.metadata
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

import espan_kernels
from espan import __version__
from espan.errors import EspanError
from espan.options import BACKENDS, BackendName
from espan.system import memory
from espan.system.devices import cpu_has_bf16, pick_device, pick_dtype
from espan.upscaler import Upscaler
from espan_kernels import cpu, machine, native

Facts = dict[str, str | list[str]]

# The extras for users; the others are for developers.
EXTRAS = ("train", "video", "demo", "image", "export", "openvino", "ray")
# Backends that need seconds or minutes before their first tile.
SLOW = ("compile", "onnx")
TILE = 256
# Repetitions of a tile are timed until they add up to this.
SECONDS = 0.3
# Text in the line of a backend that failed, and of one that ran.
FAILED, TIMED = "failed", "ms for"
# Exists if an NVIDIA driver is loaded.
NVIDIA = Path("/proc/driver/nvidia/version")


def examine(*, slow: bool = False, paths: bool = False) -> Facts:
    """Facts by name, in printing order; a list has one line per entry.

    The first, "health", is a summary in one line.

    slow: also time the backends that start slowly. paths: keep the names of folders, user and
    machine, which are replaced otherwise.
    """
    device = pick_device("auto")
    facts: Facts = {
        "espan": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
    }
    for package in ("torch", "triton", "numpy", "pillow", "safetensors"):
        facts[package] = _version(package)
    free = memory.available()
    facts["cpu"] = _processor()
    facts["memory"] = "unknown" if free is None else f"{free / 2**30:.1f} GiB free"
    facts["gpu"] = _gpus()
    facts["nvcc"] = _nvcc()
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    facts["auto"] = f"device {device}, {dtype}"
    facts["settings"] = [
        f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("ESPAN_")
    ] or ["no ESPAN_ variable is set"]
    facts["extras"] = _extras()
    facts["kernels"] = _kernels(device.type)
    backends = {name: _timed(name, slow) for name in BACKENDS}
    facts["backends"] = [f"{name}: {result}" for name, result in backends.items()]
    facts = {"health": _health(backends, device), **facts}
    return facts if paths else _without_names(facts)


def _health(backends: Mapping[BackendName, str], device: torch.device) -> str:
    """ "All well" with the device and its speed, or the list of problems.

    Packages that are not installed and backends for other machines are not problems.
    """
    auto = backends.get("auto", "not timed")
    problems = [
        f"backend {name}: {result}"
        for name, result in backends.items()
        if result.startswith(FAILED) or (name in ("auto", "eager") and TIMED not in result)
    ]
    if device.type == "cpu" and _has_nvidia():
        problems.append(f"an NVIDIA driver is loaded, but GPU: {_gpus()}")
    if device.type == "cuda" and native.REASON:
        problems.append(f"GPU without its fastest kernels: {native.REASON}")
    if not problems:
        return f"All well: {device}, {auto}"
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    return f"{count}: {'; '.join(problems)}"


def _has_nvidia() -> bool:
    """Whether a driver is loaded and CUDA_VISIBLE_DEVICES does not hide all GPUs."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return NVIDIA.exists() and not hidden


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


def _nvcc() -> str:
    path = shutil.which("nvcc")
    if path is None:
        return "not on PATH"
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path}: does not run: {error}"
    release = re.search(r"release ([\d.]+)", done.stdout)
    return f"{release[1] if release else 'unknown release'}, {path}"


def _extras() -> list[str]:
    """A line per extra: the versions of its packages, or the command that installs them."""
    try:
        needed = importlib.metadata.requires("espan") or []
    except importlib.metadata.PackageNotFoundError:
        return ["unknown: espan runs from a folder and was not installed"]
    lines = []
    for extra in EXTRAS:
        wanted = [each for each in needed if re.search(rf"extra == ['\"]{extra}['\"]", each)]
        names = [match[0] for each in wanted if (match := re.match(r"[\w.-]+", each))]
        missing = [name for name in names if _version(name) == "not installed"]
        here = ", ".join(f"{name} {_version(name)}" for name in names)
        install = f"no {', '.join(missing)}: pip install 'espan[{extra}]'"
        if names:
            lines.append(f"{extra}: {install if missing else here}")
    return lines


def _processor() -> list[str]:
    bf16 = "bf16 in hardware" if cpu_has_bf16() else "no bf16 in hardware"
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads used, {bf16}"
    units = [f"{cpu.unit(dtype)} in {dtype}" for dtype in cpu.UNITS if cpu.unit(dtype)]
    kernels = f"CPU kernels: {', '.join(units) or 'none for this processor'}"
    return [cores, cpu.REASON or kernels.replace("torch.", "")]


def _kernels(device: str) -> list[str]:
    """For each implementation, the ops it supports and the reasons why it refuses the others."""
    explained = espan_kernels.explain(device).splitlines()[len(machine.describe().splitlines()) :]
    groups: dict[tuple[str, str], list[str]] = {}
    notes = []
    for line in explained:
        op, _, rest = line.partition(": ")
        if op in espan_kernels.OPS:
            impl, _, reason = rest.partition(": ")
            groups.setdefault((impl, reason), []).append(op)
        else:
            notes.append(line)
    everything = len(espan_kernels.OPS)
    for (impl, reason), ops in groups.items():
        names = "every op" if len(ops) == everything else ", ".join(ops)
        notes.append(f"{impl}: {reason} ({names})")
    return notes


def _timed(backend: BackendName, slow: bool) -> str:
    """The time from uint8 tile to uint8 result, or the reason why the backend does not run."""
    if backend in SLOW and not slow:
        return "not timed, because it starts slowly (--all times it)"
    if backend == "triton" and machine.INTERPRETED:
        return "not timed, because TRITON_INTERPRET=1 is set"
    tile = np.random.default_rng(0).integers(0, 256, (TILE, TILE, 3), dtype=np.uint8)
    log = logging.getLogger("espan")
    before = log.level
    log.setLevel(logging.ERROR)  # the "kernels" lines repeat the warnings of backends
    try:
        began = time.perf_counter()
        upscaler = Upscaler("espan-x4", backend=backend)
        upscaler(tile)
        ready = time.perf_counter() - began
        took: list[float] = []
        while sum(took) < SECONDS:
            began = time.perf_counter()
            upscaler(tile)
            took.append(time.perf_counter() - began)
    except Exception as error:  # any error is a result to report
        reason = " ".join(str(error).split())[:300]
        known = isinstance(error, EspanError)
        return reason.removeprefix(f"backend {backend!r}: ") if known else f"{FAILED}: {reason}"
    finally:
        log.setLevel(before)
    speed = f"{1e3 * min(took):.0f} {TIMED} {TILE} x {TILE} to x4"
    return f"{speed} in {str(upscaler.dtype).removeprefix('torch.')}, ready after {ready:.1f} s"


_PART = r"[/\\][^\s/\\'\",;:()]+"
_PATH = re.compile(rf"<path>(?:{_PART})+|(?<![\w>])(?:[A-Za-z]:)?(?:{_PART}){{2,}}")


def _without_names(facts: Facts) -> Facts:
    """Replaces absolute paths and the names of user and machine."""
    settings = [value for key, value in os.environ.items() if key.startswith("ESPAN_")]
    package = Path(__file__).parents[2]
    nvcc = shutil.which("nvcc") or ""
    paths = [str(path) for path in (Path.home(), Path.cwd(), package)]
    paths += [sys.prefix, sys.base_prefix, nvcc, *(each for each in settings if os.sep in each)]
    # In full, because they may have spaces; longest first, because one may contain another.
    known = sorted({path for path in paths if len(path) > 1}, key=len, reverse=True)
    names = {Path.home().name, platform.node(), platform.node().split(".")[0]}
    names |= {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")}
    words = "|".join(re.escape(name) for name in sorted(names - {""}, key=len, reverse=True))

    def clean(text: str) -> str:
        for path in known:
            text = text.replace(path, "<path>")
        text = _PATH.sub("<path>", text)
        return re.sub(rf"(?<!\w)(?:{words})(?!\w)", "<name>", text) if words else text

    return {
        name: [clean(line) for line in value] if isinstance(value, list) else clean(value)
        for name, value in facts.items()
    }
