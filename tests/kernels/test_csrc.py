"""csrc: every CUDA kernel compiles for every architecture at its recorded cost; source style."""

import json
import os
import re
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from bench import cost_model, kernel_counts, sass
from espan_kernels.build_info import SOURCES, source_files
from tests.support import compile_cuda
from tests.support.costs import by_kernel, check_costs, differences
from tests.verification import sanitize

RECORD = compile_cuda.RECORD
MODEL = Path(__file__).with_name("cuda_model.json")
# Additional registers allowed per thread; they come in steps of 8.
REGISTERS = 8
WGMMA = [source for source in compile_cuda.KERNELS if sass.architectures(source) == (sass.WGMMA,)]
# Warnings of ptxas that it serialises wgmma.
SERIALISED = r"C75(?:10|11|14|17)"
# Registers of a multiprocessor, and threads of the copying warpgroup.
ALL_REGISTERS, COPYING_THREADS = 64 << 10, 128
# Instructions per input row of a computing warp: three such warps share a scheduler, which issues
# one instruction per cycle, and the products of a row take 864 cycles.
ROW_OF_32_CHANNELS = 250


@pytest.fixture(scope="session")
def cubins(tmp_path_factory):
    """The folder of compiled cubins, shared by all workers of pytest-xdist."""
    if reason := sass.missing():
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cubins"
    folder.mkdir(exist_ok=True)
    return folder


def compiled(source: str, architecture: str, folder: Path) -> Path:
    """The cubin of a source, compiled unless an earlier test did."""
    path = sass.cubin(folder, source, architecture)
    if not path.exists():
        sass.build(source, architecture, folder)
    return path


@cache
def measured(source: str, architecture: str, folder: Path) -> tuple[str, dict[str, dict]]:
    return compile_cuda.measure(source, architecture, folder)


@pytest.mark.compile
@pytest.mark.parametrize(
    ("source", "architecture"),
    [(source, one) for source in compile_cuda.KERNELS for one in sass.architectures(source)],
)
def test_costs_are_as_recorded(source, architecture, cubins):
    record = json.loads(RECORD.read_text())
    ending = f" sm_{architecture} 0"
    recorded = {
        name: cost
        for name, cost in by_kernel(record).items()
        if name.startswith(f"{source} ") and name.endswith(ending)
    }
    said, costs = measured(source, architecture, cubins)
    found = differences(by_kernel(costs), recorded, REGISTERS)
    found += [line for line in said.splitlines() if re.search(r"warning|C75\d\d", line)]
    check_costs(found, "nvcc", compile_cuda.version(), record["nvcc"])


@pytest.mark.compile
@pytest.mark.parametrize("source", WGMMA)
def test_wgmma_is_not_serialised(source, cubins):
    """Holds for every compiler version, unlike the recorded costs."""
    said, costs = measured(source, sass.WGMMA, cubins)
    assert not re.findall(SERIALISED, said)
    for cost in by_kernel(costs).values():
        assert cost["spills"] == cost["stack"] == 0
        assert cost["hgmma"] and min(cost["hgmma"]) > 0


@pytest.mark.compile
@pytest.mark.parametrize("source", WGMMA)
def test_roles_use_at_most_their_registers(source, cubins):
    path = compiled(source, sass.WGMMA, cubins)
    threads, usage = sass.threads(path), sass.usage(path)
    for name, code in sass.instructions(path).items():
        counts = {
            word: (i, int(count, 16))
            for i, (_, line) in enumerate(code)
            for word, count in re.findall(r"USETMAXREG\.(\w+).*0x(\w+)", line)
        }
        if not counts:
            continue
        (give, given), (_, taken) = counts["DEALLOC"], counts["TRY_ALLOC"]
        end = next(i for i in range(give, len(code)) if code[i][1].split()[0] == "EXIT")
        assert sass.registers(code[give:end]) <= given
        assert sass.registers(code) <= taken
        # setmaxnreg.inc waits for free registers, so the block's initial ones have to suffice.
        started = usage[name]["registers"] * threads[name]
        wanted = (threads[name] - COPYING_THREADS) * taken + COPYING_THREADS * given
        assert wanted <= started <= ALL_REGISTERS


def test_rows_by_wgmma_are_few_instructions():
    """A row has one wgmma per kernel column and 16 channels; a loop has one row."""
    rows = {
        name: cost[f"sm_{sass.WGMMA}"]
        for name, cost in json.loads(RECORD.read_text()).items()
        if " wgmma_kernel<" in name
    }
    for name, cost in rows.items():
        planes, convs = map(int, re.findall(r"\d+", name.split("<")[1])[:2])
        assert cost["hgmma"] == [3 * ((planes + 1) // 2)] * convs
        if planes == 4:  # the sums of two of the three rows in progress are not taken
            assert max(cost["instructions"]) - 66 <= ROW_OF_32_CHANNELS
    assert len(rows) >= 2


@pytest.mark.parametrize("source", compile_cuda.KERNELS)
def test_every_source_is_in_the_record(source):
    names = [name for name in json.loads(RECORD.read_text()) if name.startswith(f"{source} ")]
    assert names, "python -m tests.support.compile_cuda > tests/kernels/cuda_costs.json"


@pytest.mark.compile
@pytest.mark.parametrize("source", compile_cuda.KERNELS)
def test_kernels_that_arrive_at_barriers_are_known(source, cubins):
    """Exactly these kernels cannot be judged by racecheck (tests/verification/sanitize.py)."""
    kernels = sass.instructions(compiled(source, sass.architectures(source)[0], cubins)).values()
    arrives = any("BAR.ARV" in line for code in kernels for _, line in code)
    assert arrives == (Path(source).stem in sanitize.ARRIVING)


@pytest.mark.compile
def test_the_model_is_as_recorded(cubins):
    for block, architecture in product(cost_model.BLOCKS.values(), sass.ARCHITECTURES):
        compiled(block.source, architecture, cubins)
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


def test_model_meets_the_targets():
    # Shares of the blocks' inner loops, bytes of device memory, resident warps on 8.6 and 8.9.
    recorded = json.loads(MODEL.read_text())
    assert recorded["bytes per pixel"] <= 1100
    loops = [value for name, value in recorded.items() if name.startswith("spab")]
    assert len(loops) == sum(len(block.hmma_cycles) for block in cost_model.BLOCKS.values())
    assert min(loop["hmma share"] for loop in loops) >= 0.7
    assert min(loop.get("warps", 8) for loop in loops) >= 8


@pytest.mark.parametrize("block", cost_model.BLOCKS.values(), ids=cost_model.BLOCKS.keys())
def test_model_matches_the_kernels_strips(block):
    record = json.loads(RECORD.read_text())[f"{block.source} {block.kernel}"]
    ring = 3 * 4 * (block.columns + 2) * 16
    assert record["sm_80"]["shared"] == block.convs * (ring + 32 * 4)


@pytest.mark.parametrize(("kernel", "rows", "roles"), kernel_counts.COUNTED)
def test_role_counts_match_the_code(kernel, rows, roles):
    """The counts used by `bench/predict.py` match the loops of the machine code.

    Rare branches have at most 7 special functions in 3 rows, for integer divisions.
    """
    cost = json.loads(RECORD.read_text())[kernel][f"sm_{sass.WGMMA}"]
    expected = [
        (
            len(role.wgmma),
            len(role.wgmma) + role.special + role.instructions + rare,
            role.special,
            7 / 3 if rare else 0,
        )
        for role, rare, _ in roles
    ]
    found = [
        tuple(count / rows for count in loop)
        for loop in zip(cost["hgmma"], cost["instructions"], cost["mufu"], strict=True)
    ]
    for one, other in zip(sorted(found), sorted(expected), strict=True):
        assert one[0] == other[0] and one[1] == pytest.approx(other[1], rel=0.01)
        assert 0 <= one[2] - other[2] <= other[3]


@pytest.mark.compile
@pytest.mark.parametrize(("kernel", "rows", "roles"), kernel_counts.COUNTED)
def test_overlapped_counts_match_the_code(kernel, rows, roles, cubins):
    source, name = kernel.split(" ", 1)
    code = sass.instructions(compiled(source, sass.WGMMA, cubins))[name]
    found = [count / rows for count in sass.during_products(code)]
    expected = [role.overlapped + role.special + rare for role, _, rare in roles]
    assert sorted(found) == pytest.approx(sorted(expected), rel=0.03)


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


def test_out_of_line_wait_is_not_a_loop():
    code = [
        (0x00, "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R0 "),
        (0x10, "@!P0 BRA 0x60 "),
        (0x20, "HGMMA.64x96x16.F32 R24, gdesc[UR8], R24, gsb0 "),
        (0x30, "@P1 BRA 0x00 "),
        (0x40, "@P2 EXIT "),
        (0x50, "EXIT "),
        (0x60, "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R0 "),
        (0x70, "@P0 BRA 0x20 "),
    ]
    (loop,) = sass.loops(code)
    assert sass.total(loop, "HGMMA") == 1 and loop.total() == 4
    code[3:3] = [(0x24, "FADD R1, R1, R2 "), (0x28, "WARPGROUP.DEPBAR.LE gsb0, 0x0 ")]
    assert sass.during_products(code) == [1]
    assert sass.registers(code) == 72 and sass.registers(code[:2]) == 1


def test_a_record_is_renewed_by_source():
    record = {"nvcc": "13.0", "a.cu x": 1, "b.cu y": 2, "b.cu z": 3}
    renewed = compile_cuda.renewed(record, ["b.cu"], {"b.cu w": 4})
    assert [*renewed.items()] == [("a.cu x", 1), ("b.cu w", 4)]
    assert compile_cuda.renewed(record, [], {}) == {name: record[name] for name in [*record][1:]}
    if sass.missing() is None:
        assert compile_cuda.main(["nothing.cu"]) == "no such sources: nothing.cu"


EVERY_FILE = [*source_files(), *source_files(SOURCES / "host")]


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: path.name)
def test_sources_are_short_and_start_with_a_comment(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 300
    assert lines[0].startswith("// ")
    assert max(map(len, lines)) <= 100
