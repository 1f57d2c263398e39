"""Every Triton kernel compiles for every architecture, without spills, at its recorded cost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

RECORD = Path(__file__).with_name("triton_costs.json")
# Registers come in steps of 8 a thread, and the assembler's choices move by a few.
REGISTERS, SHARED = 24, 1.1
A_FEW = 32  # bytes


@pytest.fixture(scope="module")
def costs() -> dict:
    """Measured in a process of its own: this one may have the interpreter on."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.compile_triton"],
        cwd=RECORD.parent.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def kernels(costs: dict):
    for key, architectures in costs.items():
        if key != "triton":
            for architecture, launched in architectures.items():
                for i, cost in enumerate(launched):
                    yield f"{key} {architecture} {i} {cost['kernel']}", cost


def test_no_kernel_spills(costs):
    """By the Triton of the record; another may keep a few bytes of a thread on its stack."""
    measured = dict(kernels(costs))
    assert len(measured) > 100
    most = 0 if recorded_with() == triton.__version__ else A_FEW
    spilled = {name: cost["spills"] for name, cost in measured.items() if cost["spills"] > most}
    assert not spilled


def recorded_with() -> str:
    return json.loads(RECORD.read_text())["triton"]


def test_costs_are_as_recorded(costs):
    if recorded_with() != triton.__version__:
        pytest.skip(f"recorded with triton {recorded_with()}, this is {triton.__version__}")
    measured, recorded = dict(kernels(costs)), dict(kernels(json.loads(RECORD.read_text())))
    assert measured.keys() == recorded.keys(), (
        "python -m tests.support.compile_triton > tests/kernels/triton_costs.json"
    )
    for name, cost in measured.items():
        assert cost["registers"] <= recorded[name]["registers"] + REGISTERS, name
        assert cost["shared"] <= recorded[name]["shared"] * SHARED, name
        assert cost["warps"] == recorded[name]["warps"], name
