"""Machine code of the CPU kernels: newer instructions only in functions that need them anyway."""

import re
import shutil
import subprocess

import pytest

from espan_kernels import cpu

# Registers that AVX-512 and AMX add, and those of AVX.
AVX512 = re.compile(r"%(zmm|tmm|k[1-7]|[xy]mm(1[6-9]|2\d|3[01])\b)")
AVX = re.compile(r"%ymm")


@pytest.mark.skipif(cpu.MODULE is None, reason=str(cpu.REASON))
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
