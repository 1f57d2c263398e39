"""Every CUDA kernel compiles for every architecture, without spills, at its recorded cost."""

import json
import re
from pathlib import Path

import pytest

from bench import cost_model, sass
from espan_kernels.build_info import SOURCES, source_files
from tests.support import compile_cuda

RECORD = Path(__file__).with_name("cuda_costs.json")
MODEL = Path(__file__).with_name("cuda_model.json")
# Registers come in steps of 8 a thread, and the assembler's choices move by a few.
REGISTERS, SHARED = 8, 1.1


@pytest.fixture(scope="module")
def cubins(tmp_path_factory):
    if reason := sass.missing():
        pytest.skip(reason)
    return tmp_path_factory.mktemp("cubins")


@pytest.fixture(scope="module")
def measured(cubins):
    return compile_cuda.measure(cubins)


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
    assert found.keys() == recorded.keys(), (
        "python -m tests.support.compile_cuda > tests/kernels/cuda_costs.json"
    )
    for name, cost in found.items():
        assert cost["hmma"] == recorded[name]["hmma"], name
        assert cost["shared"] <= recorded[name]["shared"] * SHARED, name
        if record["nvcc"] == compile_cuda.version():
            assert cost["registers"] <= recorded[name]["registers"] + REGISTERS, name


def test_the_model_is_as_recorded(measured, cubins):
    found, recorded = cost_model.figures(cubins), json.loads(MODEL.read_text())
    assert found.keys() == recorded.keys(), (
        "python -m bench.cost_model --json > tests/kernels/cuda_model.json"
    )
    for name, value in recorded.items():
        values = value if isinstance(value, dict) else {"": value}
        ours = found[name] if isinstance(value, dict) else {"": found[name]}
        for key, one in values.items():
            near = one if isinstance(one, str) else pytest.approx(one, rel=0.05)
            assert ours[key] == near, f"{name} {key}"


def test_the_model_meets_what_was_asked():
    # Shares of the blocks' inner loops, bytes of device memory, warps at once on 8.6 and 8.9.
    recorded = json.loads(MODEL.read_text())
    assert recorded["bytes per pixel"] <= 1100
    loops = [value for name, value in recorded.items() if name.startswith("spab")]
    assert len(loops) == sum(len(block.hmma_cycles) for block in cost_model.BLOCKS.values())
    assert min(loop["hmma share"] for loop in loops) >= 0.7
    assert min(loop.get("warps", 8) for loop in loops) >= 8


@pytest.mark.parametrize("block", cost_model.BLOCKS.values(), ids=cost_model.BLOCKS.keys())
def test_the_model_knows_the_kernels_strips(block):
    record = json.loads(RECORD.read_text())[f"{block.source} {block.kernel}"]
    ring = 3 * 4 * (block.columns + 2) * 16
    assert record["sm_80"]["shared"] == block.convs * (ring + 32 * 4)


def test_the_model_cuts_a_picture_as_the_kernels_do():
    # 16 strips of 60 columns and 8 segments: the 128 items of docs/cuda.md.
    assert cost_model.segments(16, 540, 3) == 8
    # One turn of 68 rows and 6 more, at a cycle each.
    seconds = cost_model.block_seconds(cost_model.BLOCKS["spab, 3 convs"], 1, 960, 540)
    assert seconds == pytest.approx(74 / cost_model.BUSY / cost_model.CLOCK)


def test_inner_loops_are_read_from_sass():
    code = [
        (0x00, "MOV R1, R2 "),
        (0x10, "@!P0 HMMA.16816.F32 R4, R8, R12, R4 "),
        (0x20, "LDSM.16.M88.4 R8, [R1] "),
        (0x30, "@P1 BRA 0x10 "),
        (0x40, "FADD R1, R1, R2 "),
        (0x50, "BRA 0x00 "),
        (0x60, "FADD R1, R1, R2 "),
        (0x70, "@P1 BRA 0x60 "),
    ]
    (loop,) = sass.loops(code)
    assert loop == {"HMMA.16816.F32": 1, "LDSM.16.M88.4": 1, "BRA": 1}
    assert sass.total(loop, "HMMA", "LDSM") == 2


EVERY_FILE = [*source_files(), *source_files(SOURCES / "host")]


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: path.name)
def test_sources_are_short_and_say_what_they_are(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 300
    assert lines[0].startswith("// ")
    assert max(map(len, lines)) <= 100
