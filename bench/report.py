"""`--report DIR`: one command for a short session on a machine with a GPU.

Build, timings, GPU tests, sanitizers and profiles run as separate processes, each with a time limit
and a log, so that a failure does not affect other parts; parts that end early keep their results.
The most important parts come first, and the total stays below eight minutes.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import apart, machine
from bench.record import UsageError
from espan_kernels import native

TOTAL = 465.0
LOG_HEAD, LOG_TAIL = 40_000, 120_000


@dataclass(frozen=True)
class Part:
    """A command, its time limit in seconds and its log; `skip`: why it does not run."""

    name: str
    command: list[str]
    limit: float
    log: str
    skip: str | None = None


def parts(folder: Path, device: torch.device) -> list[Part]:
    python = [sys.executable, "-u"]
    bench = [*python, "bench/run.py", "--device", str(device)]
    on_gpu = None if device.type == "cuda" else "there is no GPU"
    return [
        Part(
            "build",
            [*python, "setup.py", "build_ext", "--inplace"],
            100,
            "build.log",
            on_gpu or _no_build(),
        ),
        Part(
            "bench, quick",
            [*bench, "--quick", "--json", str(folder / "bench_quick.json")],
            110,
            "bench.log",
        ),
        Part(
            "GPU tests",
            [*python, "tests/verification/gpu_suite.py", "--part", "cuda"],
            130,
            "gpu_tests.log",
            on_gpu,
        ),
        Part("profile", [*python, "bench/hot.py", "--device", str(device)], 45, "profile.log"),
        Part(
            "sanitizers", [*python, "tests/verification/sanitize.py"], 175, "sanitize.log", on_gpu
        ),
        Part(
            "bench, full",
            [*bench, "--full", "--json", str(folder / "bench.json")],
            TOTAL,
            "bench.log",
            on_gpu,
        ),
    ]


def _no_build() -> str | None:
    if native.REASON is None:
        return "the CUDA kernels are already built"
    if not (
        os.environ.get("NVCC") or shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").is_file()
    ):
        return "there is no nvcc"
    return None


def write(folder: Path, device: torch.device) -> int:
    """Runs all parts and writes a summary; returns 0 if all succeeded or were skipped, else 1."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot create the folder: {error.strerror}") from error
    folder, end = folder.resolve(), time.monotonic() + TOTAL
    results = [(part, *_run(part, folder, end)) for part in parts(folder, device)]
    (folder / "summary.md").write_text(_summary(results, folder, device))
    print((folder / "summary.md").read_text())
    return 0 if all(result in ("ok", part.skip) for part, result, _ in results) else 1


def _environment() -> dict[str, str]:
    """Prefers the checkout over installed packages; compiles for this GPU only, which is fastest.

    Includes source lines for profilers and sanitizers.
    """
    paths = [str(machine.ROOT), os.environ.get("PYTHONPATH", "")]
    changes = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "ESPAN_CUDA": "1"}
    changes["ESPAN_LINEINFO"] = "1"
    if torch.cuda.is_available():
        changes["ESPAN_CUDA_ARCHS"] = "{}{}".format(*torch.cuda.get_device_capability())
    return os.environ | changes


def _run(part: Part, folder: Path, end: float) -> tuple[str, float]:
    """(result, seconds)."""
    if part.skip:
        return part.skip, 0.0
    limit = min(part.limit, end - time.monotonic())
    if limit < 5:
        return "no time left", 0.0
    print(f"{part.name}: at most {limit:.0f} s ...", flush=True)
    began = time.monotonic()
    log = folder / part.log
    try:
        with log.open("ab") as out:
            process = subprocess.Popen(
                part.command,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=machine.ROOT,
                env=_environment(),
                start_new_session=True,
            )
            try:
                code = process.wait(limit)
                result = "ok" if code == 0 else f"exit code {code}"
            except subprocess.TimeoutExpired:
                result = f"ended after {limit:.0f} s"
            finally:
                apart.end(process)
    except OSError as error:
        result = f"could not run: {error}"
    _shorten(log)
    return result, time.monotonic() - began


def _shorten(log: Path) -> None:
    content = log.read_bytes() if log.is_file() else b""
    if len(content) > LOG_HEAD + LOG_TAIL:
        log.write_bytes(content[:LOG_HEAD] + b"\n[...]\n" + content[-LOG_TAIL:])


def _summary(results, folder: Path, device: torch.device) -> str:
    lines = ["# Report", "", "| part | result | seconds | log |", "| --- | --- | --- | --- |"]
    for part, result, seconds in results:
        log = part.log if (folder / part.log).is_file() else ""
        lines.append(f"| {part.name} | {result} | {seconds:.0f} | {log} |")
    facts = json.dumps(machine.facts(device), indent=1)
    lines += ["", "```", facts, f"CUDA kernels: {native.REASON or 'built'}", "```"]
    for name in ("gpu_tests.log", "sanitize.log", "profile.log"):
        if (folder / name).is_file():
            last = (folder / name).read_text(errors="replace").splitlines()[-8:]
            lines += ["", f"The end of {name}:", "```", *last, "```"]
    return "\n".join(lines) + "\n"
