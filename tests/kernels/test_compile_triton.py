"""Every Triton kernel compiles for every architecture, at its recorded cost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.costs import by_kernel, check_costs, differences

triton = pytest.importorskip("triton", reason="Triton is not installed")

RECORD = Path(__file__).with_name("triton_costs.json")
# Additional registers allowed per thread; they come in steps of 8.
REGISTERS = 24


def measured(architecture: str) -> dict:
    """Measures in a separate process, because this one may use the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.compile_triton", architecture],
        cwd=RECORD.parents[2],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


@pytest.mark.compile
@pytest.mark.parametrize("architecture", ["80", "90", "100", "120"])
def test_costs_are_as_recorded(architecture):
    """After an intended change:

    python -m tests.support.compile_triton > tests/kernels/triton_costs.json
    """
    record = json.loads(RECORD.read_text())
    recorded = {n: c for n, c in by_kernel(record).items() if f" sm_{architecture} " in n}
    assert len(recorded) > 25
    found = differences(by_kernel(measured(architecture)), recorded, REGISTERS)
    check_costs(found, "triton", triton.__version__, record["triton"])
