"""Compiles every CUDA kernel for every architecture, with no GPU; prints what each costs.

python -m tests.support.compile_cuda > tests/kernels/cuda_costs.json
"""

import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import sass
from espan_kernels.build_info import SOURCES
from tests.support.costs import as_text

KERNELS = sorted(path.name for path in SOURCES.glob("*.cu"))


def version() -> str:
    return re.search(r"release (\S+),", sass.output("nvcc", "--version"))[1]


def costs(path: Path) -> dict[str, dict]:
    """The cost of each kernel in what was compiled into `path`."""
    found = sass.usage(path)
    for name, code in sass.instructions(path).items():
        found[name]["spills"] = sum("STL" in line or "LDL" in line for _, line in code)
        loops = sass.loops(code)
        found[name]["hmma"] = [sass.total(loop, "HMMA") for loop in loops]
        if path.name.endswith(f"_wgmma.cu.{sass.WGMMA}.cubin"):
            found[name]["hgmma"] = [sass.total(loop, "HGMMA") for loop in loops]
            found[name]["instructions"] = [loop.total() for loop in loops]
    return found


def measure(source: str, architecture: str, folder: Path) -> tuple[str, dict[str, dict]]:
    """(the assembler's text, {"source kernel": {architecture: cost}}) of one file compiled once."""
    text = sass.build(source, architecture, folder)
    found = costs(sass.cubin(folder, source, architecture))
    return text, {f"{source} {n}": {f"sm_{architecture}": c} for n, c in sorted(found.items())}


def measure_all(folder: Path) -> dict[str, dict]:
    """{"source kernel": {architecture: cost}}"""
    every = {}
    pairs = [(source, one) for source in KERNELS for one in sass.architectures(source)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _, found in pool.map(lambda pair: measure(*pair, folder), pairs):
            for name, cost in found.items():
                every.setdefault(name, {}).update(cost)
    return every


if __name__ == "__main__":
    if reason := sass.missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as temporary:
        print(as_text("nvcc", version(), measure_all(Path(temporary))))
