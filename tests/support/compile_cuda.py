"""Compiles every CUDA kernel for every architecture, without a GPU, and prints the costs.

python -m tests.support.compile_cuda > tests/kernels/cuda_costs.json

With source names such as spab_wgmma.cu it compiles only these and merges them into the record.
"""

import json
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
RECORD = Path(__file__).parents[1] / "kernels/cuda_costs.json"


def version() -> str:
    return re.search(r"release (\S+),", sass.output("nvcc", "--version"))[1]


def costs(path: Path) -> dict[str, dict]:
    """The cost of each kernel in cubin `path`."""
    found = sass.usage(path)
    for name, code in sass.instructions(path).items():
        found[name]["spills"] = sum("STL" in line or "LDL" in line for _, line in code)
        loops = sass.loops(code)
        if path.name.endswith(f"_wgmma.cu.{sass.WGMMA}.cubin"):
            found[name]["hgmma"] = [sass.total(loop, "HGMMA") for loop in loops]
            found[name]["instructions"] = [loop.total() for loop in loops]
            found[name]["mufu"] = [sass.total(loop, "MUFU") for loop in loops]
        else:
            found[name]["hmma"] = [sass.total(loop, "HMMA") for loop in loops]
    return found


def measure(source: str, architecture: str, folder: Path) -> tuple[str, dict[str, dict]]:
    """Compiles one file: (output of ptxas, {"source kernel": {architecture: cost}})."""
    text = sass.build(source, architecture, folder)
    found = costs(sass.cubin(folder, source, architecture))
    return text, {f"{source} {n}": {f"sm_{architecture}": c} for n, c in sorted(found.items())}


def measure_all(sources: list[str], folder: Path) -> dict[str, dict]:
    """{"source kernel": {architecture: cost}}"""
    every: dict[str, dict] = {}
    pairs = [(source, one) for source in sources for one in sass.architectures(source)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _, found in pool.map(lambda pair: measure(*pair, folder), pairs):
            for name, cost in found.items():
                every.setdefault(name, {}).update(cost)
    return every


def renewed(record: dict, sources: list[str], measured: dict[str, dict]) -> dict[str, dict]:
    """The record's kernels, with new measurements for those of `sources`."""
    kept = {
        name: cost
        for name, cost in record.items()
        if name != "nvcc" and name.split()[0] not in sources
    }
    return dict(sorted({**kept, **measured}.items()))


def main(sources: list[str]) -> str | None:
    """Returns an error message, or None on success."""
    if (reason := sass.missing()) is not None:
        return reason
    if unknown := {*sources} - {*KERNELS}:
        return f"no such sources: {', '.join(sorted(unknown))}"
    record = json.loads(RECORD.read_text())
    if sources and record["nvcc"] != version():
        return f"the record is by nvcc {record['nvcc']}, this is {version()}: compile all"
    with tempfile.TemporaryDirectory() as temporary:
        measured = measure_all(sources or KERNELS, Path(temporary))
    if sources:
        text = as_text("nvcc", version(), renewed(record, sources, measured))
        RECORD.write_text(f"{text}\n")
    else:
        print(as_text("nvcc", version(), measured))
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
