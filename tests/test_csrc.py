"""Every CUDA kernel compiles for every architecture, without spills, at its recorded cost."""

import json
import re
from pathlib import Path

import pytest

from espan_kernels.build_info import SOURCES, source_files
from tests import compile_cuda

RECORD = Path(__file__).with_name("cuda_costs.json")
# Registers come in steps of 8 a thread, and the assembler's choices move by a few.
REGISTERS, SHARED = 8, 1.1


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    if reason := compile_cuda.missing():
        pytest.skip(reason)
    return compile_cuda.measure(tmp_path_factory.mktemp("cubins"))


def kernels(every: dict):
    for key, architectures in every.items():
        if key != "nvcc":
            for architecture, cost in architectures.items():
                yield f"{key} {architecture}", cost


def test_no_kernel_spills(measured):
    bad = {name: c for name, c in kernels(measured[0]) if c["spills"] or c["stack"]}
    assert not bad


def test_the_assembler_does_not_warn(measured):
    warned = {
        name: text for name, text in measured[1].items() if re.search(r"warning|C75\d\d", text)
    }
    assert not warned


def test_costs_are_as_recorded(measured):
    record = json.loads(RECORD.read_text())
    found, recorded = dict(kernels(measured[0])), dict(kernels(record))
    assert found.keys() == recorded.keys(), "python -m tests.compile_cuda > tests/cuda_costs.json"
    for name, cost in found.items():
        assert cost["hmma"] == recorded[name]["hmma"], name
        assert cost["shared"] <= recorded[name]["shared"] * SHARED, name
        if record["nvcc"] == compile_cuda.version():
            assert cost["registers"] <= recorded[name]["registers"] + REGISTERS, name


EVERY_FILE = [*source_files(), *source_files(SOURCES / "host")]


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: path.name)
def test_sources_are_short_and_say_what_they_are(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 300
    assert lines[0].startswith("// ")
    assert max(map(len, lines)) <= 100
