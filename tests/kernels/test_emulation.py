"""The emulated sm_90a instructions of the host build: results, and detection of misuse."""

import re
import subprocess
from pathlib import Path

import pytest

from espan_kernels.build_info import SOURCES
from tests.support import shim as host

SOURCES_HERE = [
    Path(__file__).with_name(f"{name}.cpp") for name in ("emulation_products", "emulation")
]
WRONG_SUM, IN_FLIGHT = "a wrong sum", "sums of a wgmma in flight were written"
NO_MULTIPLE, UNALIGNED = "a bulk copy of no multiple of 16 bytes", "not aligned to 16"
STILL_READING = "a block ended before its bulk copies had read shared memory"
# Part of the expected output of each case.
ENDS = {
    **{f"descriptors n{n}": "right" for n in (32, 48, 96, 128, 144, 160, 168, 192)},
    **{f"registers n{n}": "right" for n in (32, 96, 160)},
    "A's planes 16 bytes off": WRONG_SUM,
    "B's planes 16 bytes off": WRONG_SUM,
    "operands without a fence": WRONG_SUM,
    "sums read in flight": WRONG_SUM,
    "sums written in flight": IN_FLIGHT,
    "sums never waited for": "a block ended with wgmma in flight",
    "no wgmma_fence": "wgmma without wgmma_fence",
    "two shapes": "wgmma of two shapes on the same sums",
    "lanes differ": "descriptors that differ between lanes",
    "warps differ": "wgmma that differs between warps",
    "swizzled": "a descriptor with a swizzle or an offset",
    "matrices, four": "right",
    "matrices, two": "right",
    "phases": "right",
    "phase 1 of a new barrier": "right",
    "phase 0 of a new barrier": "deadlock in block 0: thread 0 waits for a phase",
    "over-arrival": "more arrivals than the barrier has",
    "no barrier": "barrier 1032 is not initialised",
    "stored over a barrier": "written over barrier 1032",
    "loaded and stored": "right",
    "read before the copy ends": "a wrong word",
    "stored, fenced, copied": "right",
    "stored, copied": "data stored without fence_async",
    "load past global memory": "global[62] of 64",
    "load from before global memory": "global[-1] of 64",
    "load past shared memory": "shared byte [32736] of 32768",
    "load over a barrier": "written over barrier 33784",
    "load of 24 bytes": NO_MULTIPLE,
    "load to byte 8": UNALIGNED,
    "load from byte 4": UNALIGNED,
    "load by an unfenced barrier": "a bulk copy, without mbarrier_fence_init",
    "store past global memory": "global[62] of 64",
    "store from past shared memory": "shared byte [32768] of 32768",
    "store of 24 bytes": NO_MULTIPLE,
    "store from byte 8": UNALIGNED,
    "ends with a store": STILL_READING,
    "ends with a store not committed": STILL_READING,
    "too many registers": "setmaxnreg to more registers than there are",
    "registers of some warps": "setmaxnreg of part of a warpgroup",
    "global memory too early": "global memory before wait_for_earlier_kernels",
    "global memory in time": "right",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if reason := host.missing():
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("emulation") / "emulation"
    host.run("g++", "-std=c++17", "-O0", "-DESPAN_SHIM", f"-I{SOURCES}", *SOURCES_HERE, "-o", path)
    return path


@pytest.mark.parametrize("case", ENDS)
def test_emulated(program, case):
    for seed in range(3):
        result = subprocess.run([program, case, str(seed)], capture_output=True, text=True)
        assert result.returncode == 0
        output = result.stdout.strip()
        assert output == "right" if ENDS[case] == "right" else ENDS[case] in output


def test_every_case_is_run():
    texts = "\n".join(source.read_text() for source in SOURCES_HERE)
    cases = re.findall(r'^ +\{"(.*)", \{\d+', texts, re.M)
    assert cases == [*ENDS]
