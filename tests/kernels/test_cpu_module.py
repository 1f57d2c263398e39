"""The module of the CPU kernels: its machine code, its sizes, which unit is selected."""

import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch

from espan_kernels import cpu
from espan_kernels.cpu import GROUP, MAX_CHANNELS, TAP

pytestmark = pytest.mark.skipif(cpu.MODULE is None, reason=str(cpu.REASON))

# Registers that AVX-512 and AMX add, and those of AVX.
AVX512 = re.compile(r"%(zmm|tmm|k[1-7]|[xy]mm(1[6-9]|2\d|3[01])\b)")
AVX = re.compile(r"%ymm")


@pytest.mark.skipif(not shutil.which("objdump"), reason="needs objdump of binutils")
def test_functions_that_every_processor_runs_have_no_newer_instructions():
    """A template that several sources instantiate is linked once, and must suit all of them."""
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", cpu.MODULE.__file__]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name, avx512, avx = "", set(), set()
    for line in text.splitlines():
        if (begins := re.match(r"[0-9a-f]+ <(.*)>:$", line)) is not None:
            name = begins[1]
        elif AVX512.search(line):
            avx512.add(name)
        elif AVX.search(line):
            avx.add(name)
    assert any("Lanes512" in each for each in avx512) and any("Lanes256" in each for each in avx)
    # Only units of AVX-512 compute in bfloat16, whose elements are unsigned short.
    for_avx512 = ("Lanes512", "Bfloat16", "unsigned short", "espan_cpu::Amx")
    assert not [each for each in avx512 if not any(part in each for part in for_avx512)]
    assert not [each for each in avx - avx512 if "espan_cpu::" not in each]


def test_sizes_are_those_of_the_module():
    module = cpu.MODULE
    assert (TAP, cpu.TILE, GROUP) == (module.TAP, module.TILE, module.GROUP)
    assert module.TILE * module.MAX_TILES == MAX_CHANNELS


@pytest.mark.parametrize(
    ("limit", "units"),
    [
        ("", ("amx", "avx512_bf16", "avx512", "avx2")),
        ("AVX512_CORE_AMX", ("amx", "avx512_bf16", "avx512", "avx2")),
        ("AVX512_CORE_BF16", ("avx512_bf16", "avx512", "avx2")),
        ("AVX512_CORE_VNNI", ("avx512", "avx2")),
        ("AVX2", ("avx2",)),
        ("SSE41", ()),
    ],
)
def test_onednns_limit_applies(monkeypatch, limit, units):
    monkeypatch.setattr(cpu, "_LIMIT", limit)
    for dtype, names in cpu.UNITS.items():
        allowed = [each for each in names if each in units and cpu.MODULE.has(each)]
        assert cpu.unit(dtype) == (allowed[0] if allowed else None)


@pytest.mark.parametrize(
    ("able", "intel", "faster"),
    [
        (("amx", "avx512_bf16", "avx512", "avx2"), True, torch.bfloat16),
        (("avx512_bf16", "avx512", "avx2"), True, torch.float32),
        (("avx512_bf16", "avx512", "avx2"), False, torch.bfloat16),
        (("avx2",), False, torch.float32),
        ((), True, None),
    ],
)
def test_faster_dtype(monkeypatch, able, intel, faster):
    module = SimpleNamespace(has=lambda name: name in able, INTEL=intel)
    monkeypatch.setattr(cpu, "_LIMIT", "")
    monkeypatch.setattr(cpu, "MODULE", module)
    assert cpu.faster_dtype() == faster
    monkeypatch.setattr(cpu, "MODULE", None)
    assert cpu.faster_dtype() is None
