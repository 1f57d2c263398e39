"""Compiles the kernels of csrc for every architecture, without a GPU, and analyses their SASS."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from espan_kernels.build_info import SOURCES

ARCHITECTURES = ("80", "86", "90a", "100", "120")
# The only architecture of *_wgmma.cu.
WGMMA = "90a"


def tool(name: str) -> str | None:
    """The path of tool `name`, from PATH or bundled with Triton."""
    triton = importlib.util.find_spec("triton")
    carried = Path(triton.origin).parent / "backends/nvidia/bin" / name if triton else None
    return shutil.which(name) or (str(carried) if carried and carried.exists() else None)


def missing() -> str | None:
    """Why compilation is impossible here, or None."""
    names = ("nvcc", "cuobjdump", "c++filt")
    return next((f"no {name} on PATH" for name in names if tool(name) is None), None)


def output(name: str, *arguments) -> str:
    """The output of a tool."""
    command = [tool(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True).stdout


def architectures(source: str) -> tuple[str, ...]:
    """The architectures of csrc/`source`."""
    return (WGMMA,) if Path(source).stem.endswith("_wgmma") else ARCHITECTURES


def cubin(folder: Path, source: str, architecture: str) -> Path:
    """The path of the cubin that `build` makes from `source`."""
    return folder / f"{source}.{architecture}.cubin"


def build(source: str, architecture: str, folder: Path) -> str:
    """Compiles csrc/`source` into `cubin`; returns the output of ptxas."""
    command = [tool("nvcc"), "-std=c++17", "-O3", f"-I{SOURCES}", "-lineinfo"]
    command += [f"-arch=sm_{architecture}", "-cubin"]
    path = cubin(folder, source, architecture)
    part = path.with_suffix(f".{os.getpid()}.cubin")
    result = subprocess.run(
        [*command, "-Xptxas", "-v", str(SOURCES / source), "-o", str(part)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    part.replace(path)
    return result.stderr


def demangled(name: str) -> str:
    """espan::(anonymous)::kernel<3, 4> as "kernel<3, 4>"."""
    text = re.sub(r"\((int|float|espan::\w+)\)", "", output("c++filt", name))
    return re.search(r"(\w+(<[^(]*?>)?)\((?!anon)", text)[1]


def usage(path: Path) -> dict[str, dict[str, int]]:
    """{kernel: registers and stack bytes per thread, shared memory bytes per block}."""
    found = {}
    text = output("cuobjdump", "--dump-resource-usage", path)
    for name, numbers in re.findall(r"Function (\S+):\s+(.*)", text):
        values = {key: int(value) for key, value in re.findall(r"\b([A-Z]+):(\d+)", numbers)}
        found[demangled(name)] = {
            "registers": values["REG"],
            "stack": values["STACK"] + values["LOCAL"],
            "shared": values["SHARED"],
        }
    return found


def instructions(path: Path) -> dict[str, list[tuple[int, str]]]:
    """{kernel: its instructions, each with its address}."""
    functions = re.findall(
        r"Function : (\S+)\n(.*?)(?=Function :|\Z)", output("cuobjdump", "-sass", path), re.S
    )
    return {
        demangled(name): [
            (int(address, 16), line)
            for address, line in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", text)
        ]
        for name, text in functions
    }


def loops(code: list[tuple[int, str]]) -> list[Counter]:
    """Instruction counts of each innermost loop with matrix instructions, in order, by name without
    predicate and operands.
    """
    return [Counter(names) for names in _loops(code)]


def during_products(code: list[tuple[int, str]]) -> list[int]:
    """For each loop of `loops`, the number of other instructions from the first wgmma of a group to
    the wait for the group.
    """
    found = []
    for names in _loops(code):
        inside, count = False, 0
        for name in names:
            product = name.startswith("HGMMA")
            inside = (inside or product) and not name.startswith("WARPGROUP.DEPBAR")
            count += inside and not product
        found.append(count)
    return found


def _loops(code: list[tuple[int, str]]) -> list[list[str]]:
    """The instruction names of each loop. A backward branch after an EXIT is not a loop but the
    out-of-line part of a wait.
    """
    at = {address: i for i, (address, _) in enumerate(code)}
    exits = [i for i, (_, line) in enumerate(code) if line.split()[0] == "EXIT"]
    names = [re.sub(r"^@!?\w+\s+", "", line).split()[0] for _, line in code]
    spans = []
    for i, (_, line) in enumerate(code):
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", line)
        start = at.get(int(target[1], 16), i) if target else i
        if start >= i or any(start < end < i for end in exits):
            continue
        if any(name.startswith(("HMMA", "HGMMA")) for name in names[start:i]):
            spans.append((start, i))
    return [
        names[start : end + 1]
        for start, end in spans
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in spans)
    ]


def threads(path: Path) -> dict[str, int]:
    """{kernel: maximum threads per block}."""
    found = re.findall(
        r"\.nv\.info\.(\S+)\n(?:(?!\.nv\.info).*\n)*?.*EIATTR_MAX_THREADS\n.*\n\s*Value:\s+(\S+)",
        output("cuobjdump", "-elf", path),
    )
    return {demangled(name): int(count, 16) for name, count in found}


def registers(code: list[tuple[int, str]]) -> int:
    """The number of registers used; counts only the first register of load and store operands."""
    most = 0
    for _, line in code:
        sums = re.search(r"\bHGMMA\.64x(\d+)x\S* R(\d+)", line)
        last = [int(sums[2]) + int(sums[1]) // 2 - 1] if sums else []
        most = max([most, *last, *map(int, re.findall(r"\bR(\d+)\b", line))])
    return most + 1


def total(loop: Counter, *prefixes: str) -> int:
    """The number of instructions in the loop with one of these prefixes."""
    return sum(count for name, count in loop.items() if name.startswith(prefixes))
