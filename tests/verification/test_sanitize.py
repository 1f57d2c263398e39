"""sanitize.py and gpu_suite.py without a GPU: how they interpret the output of their tools."""

import subprocess
import sys
from functools import partial

import pytest
import torch

from espan_kernels.build_info import PACKAGE
from tests.verification import gpu_suite, sanitize

GATE = "void espan::<unnamed>::forward_kernel<float>(espan::Global<const T1>, long)"
CLEAN = """\
========= COMPUTE-SANITIZER
57 calls
========= ERROR SUMMARY: 0 errors
"""
NO_RACE = """\
========= COMPUTE-SANITIZER
57 calls
========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)
"""
OUT_OF_BOUNDS = f"""\
========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 4 bytes
=========     at {GATE}+0x90 in span_gate.cu:71
=========     by thread (31,0,0) in block (0,0,0)
=========     Access at 0x7f2c8be00200 is out of bounds
=========     and is 1 bytes after the nearest allocation at 0x7f2c8be00000 of size 512 bytes
=========
========= Invalid __global__ read of size 4 bytes
=========     at {GATE}+0x90 in span_gate.cu:71
=========     by thread (30,0,0) in block (0,0,0)
=========
========= Program hit unspecified launch failure (error 719) due to "unspecified launch failure"
=========
========= ERROR SUMMARY: 3 errors
"""
RACE = """\
========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at down_kernel(Lines)+0x1f60 in dct_l1.cu:79
=========     and Read access at down_kernel(Lines)+0x2b0 in ptx.cuh:23 [4096 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
UNINITIALIZED = """\
========= COMPUTE-SANITIZER
========= Uninitialized __global__ memory read of size 4 bytes
=========     at back_kernel(Lines)+0x2d0 in base.cuh:23
=========     by thread (0,0,0) in block (0,0,0)
=========
========= ERROR SUMMARY: 1 error
"""
DIVERGENT = """\
========= COMPUTE-SANITIZER
========= Barrier error detected. Divergent thread(s) in warp.
=========     at rows_kernel()+0x110 in ptx.cuh:61
=========     by thread (32,0,0) in block (0,0,0)
=========
========= ERROR SUMMARY: 1 error
"""
UNBUILT = sanitize.Part("racecheck", "right", "broken", ["no nvcc to build it"], 0.0)
NO_DEVICE_CODE = """\
========= COMPUTE-SANITIZER
Traceback (most recent call last):
ImportError: no module
========= Error: Target application terminated before first instrumented API call
========= Error: couldn't find exit code.
"""
NOT_SUPPORTED = """\
========= COMPUTE-SANITIZER
========= Error: Device not supported. Please refer to the "Supported Devices" section
========= ERROR SUMMARY: 0 errors
"""
DIED = """\
========= COMPUTE-SANITIZER
RuntimeError: CUDA error
========= Error: process didn't terminate successfully
========= ERROR SUMMARY: 0 errors
"""


@pytest.mark.parametrize("text", [CLEAN, NO_RACE], ids=["errors", "hazards"])
def test_clean_needs_a_summary_and_exit_code_0(text):
    assert sanitize.parse(text, 0) == ("clean", [])
    assert sanitize.parse(text, 3) == ("broken", ["exit code 3", "57 calls"])
    without = "\n".join(line for line in text.splitlines() if "SUMMARY" not in line)
    assert sanitize.parse(without, 0)[1][0] == "exit code 0, no summary"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            OUT_OF_BOUNDS,
            [
                f"2 x Invalid __global__ read of size 4 bytes at {GATE}+0x90 in span_gate.cu:71",
                '1 x Program hit unspecified launch failure (error 719) due to "unspecified launch '
                'failure"',
            ],
        ),
        (
            RACE,
            [
                "1 x Error: Race reported between Write access at down_kernel(Lines)+0x1f60"
                " in dct_l1.cu:79 and Read access at down_kernel(Lines)+0x2b0 in ptx.cuh:23"
            ],
        ),
        (
            UNINITIALIZED,
            [
                "1 x Uninitialized __global__ memory read of size 4 bytes at "
                "back_kernel(Lines)+0x2d0 in base.cuh:23"
            ],
        ),
        (
            DIVERGENT,
            [
                "1 x Barrier error detected. Divergent thread(s) in warp. at rows_kernel()+0x110"
                " in ptx.cuh:61"
            ],
        ),
        ("========= ERROR SUMMARY: 2 errors\n", ["2 counted only by the summary"]),
        ("========= Something new\n========= ERROR SUMMARY: 0 errors\n", ["1 x Something new"]),
    ],
    ids=["memcheck", "racecheck", "initcheck", "synccheck", "summary", "unknown"],
)
@pytest.mark.parametrize("code", [0, 7])
def test_findings(text, lines, code):
    assert sanitize.parse(text, code) == ("findings", lines)


@pytest.mark.parametrize("text", [NO_DEVICE_CODE, NOT_SUPPORTED, DIED, ""])
def test_a_tool_that_did_not_run_is_not_clean(text):
    outcome, lines = sanitize.parse(text, 0)
    assert outcome == "broken" and lines


def write_tool(folder, text: str, code: int = 0, seconds: float = 0) -> None:
    """A fake compute-sanitizer in folder/bin: waits, prints a text and ends with an exit code."""
    script = folder / "bin" / "compute-sanitizer"
    script.parent.mkdir(exist_ok=True)
    (folder / "text").write_text(text)
    script.write_text(f"#!/bin/sh\ncat {folder}/text\nsleep {seconds}\nexit {code}\n")
    script.chmod(0o755)


@pytest.fixture
def tool(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return partial(write_tool, tmp_path)


def test_the_output_of_a_tool_is_saved(tool, tmp_path):
    tool(RACE, 7)
    part = sanitize.check("racecheck", "cuda", tmp_path)
    assert (part.outcome, len(part.lines)) == ("findings", 1)
    assert (tmp_path / "sanitize_racecheck_cuda.txt").read_text() == RACE


@pytest.mark.parametrize(("text", "outcome"), [(CLEAN, "broken"), (RACE, "findings")])
def test_a_part_over_its_time_limit_is_not_clean(tool, text, outcome):
    tool(text, 0, seconds=60)
    part = sanitize.check("memcheck", "cuda", seconds=2)
    assert part.outcome == outcome and part.lines[0] == "not done after 2 s"
    assert part.seconds < 50


@pytest.mark.parametrize(("text", "code"), [(CLEAN, 0), (RACE, 1), (DIED, 1)])
def test_one_table_and_one_exit_code(tool, monkeypatch, capsys, text, code):
    tool(text, 0)
    monkeypatch.setattr(sanitize, "missing", lambda: None)
    monkeypatch.setattr(sanitize, "calls_command", lambda group: ["true"])
    monkeypatch.setattr(sanitize, "probe", lambda report: (UNBUILT, frozenset()))
    assert sanitize.sanitize() == code
    out = capsys.readouterr().out
    for name in (*sanitize.TOOLS, *sanitize.GROUPS, sanitize.parse(text, 0)[0]):
        assert name in out
    # Without the probe, unjudged races are findings.
    assert "racecheck  right    broken        0.0\n    no nvcc to build it" in out


def test_every_op_is_called_with_every_implementation(monkeypatch):
    from espan_kernels import OPS

    called = []
    for op in OPS.values():
        monkeypatch.setattr(op, "make", lambda case, dtype, device: (torch.ones(1, dtype=dtype),))
        for kernel in op.kernels:
            monkeypatch.setattr(kernel, "refuses", lambda args: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(
        type(op), "__call__", lambda op, *args, impl: called.append((op.name, impl))
    )
    assert sum(map(sanitize.run_calls, sanitize.GROUPS)) == len(called)
    kernels = {(op.name, k.name) for op in OPS.values() for k in op.kernels if k.run}
    assert set(called) == kernels


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", ["sanitize", "gpu_suite"])
def test_without_a_gpu_there_is_one_line_and_exit_code_2(script):
    command = [sys.executable, "-m", f"tests.verification.{script}"]
    result = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == f"{script}: no GPU that torch can use\n" and not result.stderr


def test_the_suite_shows_the_output_of_pytest(monkeypatch, capsys):
    monkeypatch.setattr(gpu_suite, "missing", lambda: None)
    ran = []

    def run(command, cwd, timeout):
        ran.append(command[command.index("-k") + 1])
        if "triton" in ran[-1]:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(gpu_suite.subprocess, "run", run)
    assert gpu_suite.suite(parts=["cuda"]) == 0
    assert gpu_suite.suite() == 1 and ran == ["cuda or engine", "cuda or engine", "triton"]
    assert "gpu_suite: triton: not done after 540 s" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_suite_fails_if_pytest_fails(monkeypatch, tmp_path):
    # Selects no test: pytest's exit code is 5.
    monkeypatch.setattr(gpu_suite, "missing", lambda: None)
    monkeypatch.setitem(gpu_suite.PARTS, "cuda", ("no_such_test", 60))
    assert gpu_suite.suite(tmp_path / "report", ["cuda"]) == 1
    assert (tmp_path / "report" / "gpu_suite_cuda.xml").exists()
