"""What nvcc makes of csrc: each kernel compiled for each architecture, with no GPU, and read."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from espan_kernels.build_info import SOURCES

ARCHITECTURES = ("80", "86", "89", "90a", "100", "120")
# The one that *_wgmma.cu are compiled for.
WGMMA = "90a"


def tool(name: str) -> str | None:
    """Where `name` is: on PATH, or where Triton carries it along."""
    triton = importlib.util.find_spec("triton")
    carried = Path(triton.origin).parent / "backends/nvidia/bin" / name if triton else None
    return shutil.which(name) or (str(carried) if carried and carried.exists() else None)


def missing() -> str | None:
    """Why nothing can be compiled here; None: it can."""
    names = ("nvcc", "cuobjdump", "c++filt")
    return next((f"no {name} on PATH" for name in names if tool(name) is None), None)


def output(name: str, *arguments) -> str:
    """What a tool prints."""
    command = [tool(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True).stdout


def architectures(source: str) -> tuple[str, ...]:
    """Those that csrc/`source` is compiled for."""
    return (WGMMA,) if Path(source).stem.endswith("_wgmma") else ARCHITECTURES


def cubin(folder: Path, source: str, architecture: str) -> Path:
    """Where `build` puts what it makes of `source`."""
    return folder / f"{source}.{architecture}.cubin"


def build(source: str, architecture: str, folder: Path) -> str:
    """Compiles csrc/`source` into `cubin`; returns what the assembler said."""
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
    """{kernel: its registers a thread, bytes of stack a thread and of shared memory a block}"""
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
    """{kernel: its instructions, each with its address}"""
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
    """How often each instruction stands in each innermost loop with matrix instructions, in order;
    named without its predicate and operands.

    What branches back from behind an EXIT is no loop: it is the rest of a wait, put out of the way.
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
        Counter(names[start : end + 1])
        for start, end in spans
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in spans)
    ]


def threads(path: Path) -> dict[str, int]:
    """{kernel: the most threads that a block of it may have}"""
    found = re.findall(
        r"\.nv\.info\.(\S+)\n(?:(?!\.nv\.info).*\n)*?.*EIATTR_MAX_THREADS\n.*\n\s*Value:\s+(\S+)",
        output("cuobjdump", "-elf", path),
    )
    return {demangled(name): int(count, 16) for name, count in found}


def registers(code: list[tuple[int, str]]) -> int:
    """How many registers these instructions use; of the operands of loads and stores the first."""
    most = 0
    for _, line in code:
        sums = re.search(r"\bHGMMA\.64x(\d+)x\S* R(\d+)", line)
        last = [int(sums[2]) + int(sums[1]) // 2 - 1] if sums else []
        most = max([most, *last, *map(int, re.findall(r"\bR(\d+)\b", line))])
    return most + 1


def total(loop: Counter, *prefixes: str) -> int:
    """How many instructions of the loop have such names."""
    return sum(count for name, count in loop.items() if name.startswith(prefixes))
