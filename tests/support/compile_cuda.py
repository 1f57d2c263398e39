"""Compiles every CUDA kernel for every architecture, with no GPU; prints what each costs.

python -m tests.support.compile_cuda > tests/kernels/cuda_costs.json
"""

import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
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
        found[name]["hmma"] = [sass.total(loop, "HMMA") for loop in sass.loops(code)]
    return found


def measure(folder: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """({"source kernel": {architecture: cost}}, {"source architecture": the assembler's text})"""

    def build(pair: tuple[str, str]) -> tuple[str, dict[str, dict]]:
        source, architecture = pair
        text = sass.build(source, architecture, folder)
        return text, costs(sass.cubin(folder, source, architecture))

    pairs = [*product(KERNELS, sass.ARCHITECTURES)]
    every, texts = {}, {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (source, architecture), (text, found) in zip(
            pairs, pool.map(build, pairs), strict=True
        ):
            texts[f"{source} sm_{architecture}"] = text
            for name, cost in sorted(found.items()):
                every.setdefault(f"{source} {name}", {})[f"sm_{architecture}"] = cost
    return every, texts


if __name__ == "__main__":
    if reason := sass.missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as temporary:
        print(as_text("nvcc", version(), measure(Path(temporary))[0]))
