"""Compiles every CUDA kernel for every architecture, with no GPU; prints what each costs.

python -m tests.compile_cuda > tests/cuda_costs.json
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from espan_kernels.build_info import SOURCES

ARCHITECTURES = ("80", "86", "89", "90a", "100", "120")
KERNELS = sorted(path.name for path in SOURCES.glob("*.cu"))


def tool(name: str) -> str | None:
    """Where `name` is: on PATH, or where Triton carries it along."""
    triton = importlib.util.find_spec("triton")
    carried = Path(triton.origin).parent / "backends/nvidia/bin" / name if triton else None
    return shutil.which(name) or (str(carried) if carried and carried.exists() else None)


def missing() -> str | None:
    """Why nothing can be compiled here; None: it can."""
    names = ("nvcc", "cuobjdump", "c++filt")
    return next((f"no {name} on PATH" for name in names if tool(name) is None), None)


def version() -> str:
    text = subprocess.run([tool("nvcc"), "--version"], capture_output=True, text=True).stdout
    return re.search(r"release (\S+),", text)[1]


def loops(sass: str) -> list[int]:
    """Matrix instructions in each innermost loop that has any, in order."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", sass)
    at = {int(address, 16): i for i, (address, _) in enumerate(lines)}
    spans = []
    for i, (_, text) in enumerate(lines):
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)
        if target and (start := at.get(int(target[1], 16), i)) < i:
            count = sum("HMMA" in line for _, line in lines[start : i + 1])
            if count:
                spans.append((start, i, count))
    return [
        count
        for start, end, count in spans
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e, _ in spans)
    ]


def demangled(name: str) -> str:
    """espan::(anonymous)::kernel<3, 4> as "kernel<3, 4>"."""
    text = subprocess.run([tool("c++filt"), name], capture_output=True, text=True).stdout
    text = re.sub(r"\((int|float|espan::\w+)\)", "", text)
    return re.search(r"(\w+(<[^(]*?>)?)\((?!anon)", text)[1]


def costs(source: str, architecture: str, folder: Path) -> tuple[str, dict[str, dict]]:
    """(what the assembler said, the cost of each kernel in `source`)"""
    cubin = folder / f"{source}.{architecture}.cubin"
    command = [tool("nvcc"), "-std=c++17", "-O3", "-lineinfo", f"-arch=sm_{architecture}", "-cubin"]
    result = subprocess.run(
        [*command, "-Xptxas", "-v", str(SOURCES / source), "-o", str(cubin)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    found = {}
    usage = subprocess.run(
        [tool("cuobjdump"), "--dump-resource-usage", cubin], capture_output=True, text=True
    ).stdout
    for name, numbers in re.findall(r"Function (\S+):\s+(.*)", usage):
        values = {key: int(value) for key, value in re.findall(r"\b([A-Z]+):(\d+)", numbers)}
        found[name] = {
            "registers": values["REG"],
            "stack": values["STACK"] + values["LOCAL"],
            "shared": values["SHARED"],
        }
    sass = subprocess.run(
        [tool("cuobjdump"), "-sass", cubin], capture_output=True, text=True
    ).stdout
    for name, text in re.findall(r"Function : (\S+)\n(.*?)(?=Function :|\Z)", sass, re.S):
        found[name]["spills"] = len(re.findall(r"\b(?:STL|LDL)\b", text))
        found[name]["hmma"] = loops(text)
    return result.stderr, {demangled(name): cost for name, cost in sorted(found.items())}


def measure(folder: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """({"source kernel": {architecture: cost}}, {"source architecture": the assembler's text})"""
    every, texts = {}, {}
    for source in KERNELS:
        for architecture in ARCHITECTURES:
            text, found = costs(source, architecture, folder)
            texts[f"{source} sm_{architecture}"] = text
            for name, cost in found.items():
                every.setdefault(f"{source} {name}", {})[f"sm_{architecture}"] = cost
    return every, texts


def as_text(every: dict) -> str:
    """JSON with one architecture a line, so that a change shows as its line."""
    rows = []
    for key, architectures in every.items():
        lines = [f"    {json.dumps(name)}: {json.dumps(c)}" for name, c in architectures.items()]
        rows.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n  }")
    return f'{{\n  "nvcc": "{version()}",\n' + ",\n".join(rows) + "\n}"


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as temporary:
        print(as_text(measure(Path(temporary))[0]))
