"""`python bench/cost_model.py`: what the CUDA kernels should cost, with no GPU: a prediction.

Compiles the blocks of the network, counts the instructions of their inner loops and sets them
against the rates of a multiprocessor (docs/performance.md). Nothing here is measured; how long a
kernel takes with what its warps wait for is `predict.py`. --json prints the figures that a test
keeps.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from math import ceil
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import sass

SCHEDULERS = 4  # of a multiprocessor; each issues an instruction a cycle
MUFU_CYCLES = 8  # of a scheduler's 4 lanes for a warp
REGISTERS, MOST_WARPS = 65536, 48  # of a multiprocessor of compute capability 8.6 and 8.9
SHARED = 100 * 1024, 1024  # their bytes of shared memory, and what each block costs besides

# Cycles of a scheduler's tensor core for an HMMA.16816 with float sums: 2,048 multiply-adds at the
# rates that the vendor states, GeForce's on 8.6 to 12.0. What Blackwell's 10.0 does with
# these instructions is not known: taken as 9.0.
HMMA_CYCLES = {"80": 8, "86": 32, "89": 32, "90a": 4, "100": 4, "120": 32}
# With half sums, where that differs.
HALF_CYCLES = {"86": 16, "89": 16, "120": 16}
# Of that rate, what mma.sync is reported to reach on Hopper.
REACHED = {"90a": 0.629, "100": 0.629}


@dataclass
class Block:
    """spab: `convs` convolutions of 32 channels in one kernel (csrc/common/strip.cuh)."""

    convs: int
    columns: int  # computed, in a strip
    warps: int = 12
    fp16_accumulation: bool = False
    source = "spab.cu"
    rows = 3  # that a pass of a loop takes

    @property
    def kernel(self) -> str:
        return f"rows_kernel<32, {self.convs}, 0, {str(self.fp16_accumulation).lower()}>"

    @property
    def hmma_cycles(self) -> dict[str, int]:
        """By architecture, of those it is for."""
        return HALF_CYCLES if self.fp16_accumulation else HMMA_CYCLES


BLOCKS = {
    "spab, 3 convs": Block(3, 64),
    "spab, 2 convs": Block(2, 96),
    "spab, 3 convs, fp16 accumulation": Block(3, 64, fp16_accumulation=True),
    "spab, 2 convs, fp16 accumulation": Block(2, 64, 8, fp16_accumulation=True),
}
# Of ESPAN x4, float16 planes and uint8 pictures: how many of each, and bytes of device memory a
# pixel, halos from L2.
NETWORK = {"spab, 3 convs": 5, "spab, 2 convs": 1}
BYTES = {"head": 3 + 64, "spab, 3 convs": 128, "spab, 2 convs": 128, "tail": 3 * 64 + 48}


def busy(loops: list, architecture: str, block: Block) -> dict[str, float]:
    """Cycles that each unit of a scheduler works while a block takes `block.rows` rows."""
    # Each loop is that of warps / convs warps; a scheduler has its share of them.
    share = block.warps / block.convs / SCHEDULERS

    def count(*names: str) -> float:
        return share * sum(sass.total(loop, *names) for loop in loops)

    # Wavefronts of 128 bytes, one a cycle for all schedulers.
    wavefronts = (
        4 * count("LDSM.16.M88.4", "LDGSTS")
        + 2 * count("LDSM.16.M88.2")
        + count("LDS", "STS")
        - count("LDSM")
    )
    cycles = block.hmma_cycles[architecture] / REACHED.get(architecture, 1)
    return {
        "tensor": cycles * (count("HMMA.16816") + count("HMMA.1688.") / 2),
        "issue": count(""),
        "mufu": MUFU_CYCLES * count("MUFU"),
        "shared": SCHEDULERS * wavefronts,
        "others": count("") - count("HMMA"),
    }


def residency(used: dict[str, int], block: Block) -> tuple[int, int]:
    """(blocks, warps) that a multiprocessor of 8.6 or 8.9 holds at once."""
    registers = ceil(used["registers"] / 8) * 8 * 32 * block.warps
    blocks = min(
        REGISTERS // registers,
        SHARED[0] // (used["shared"] + SHARED[1]),
        MOST_WARPS // block.warps,
    )
    return blocks, blocks * block.warps


def network_bytes() -> int:
    """Of device memory, per input pixel."""
    return sum(BYTES[name] * NETWORK.get(name, 1) for name in BYTES)


def figures(folder: Path) -> dict:
    """All of it, from what `sass.build` has put into `folder`."""
    found = {"bytes per pixel": network_bytes()}
    for name, block in BLOCKS.items():
        for architecture in block.hmma_cycles:
            path = sass.cubin(folder, block.source, architecture)
            loops = sass.loops(sass.instructions(path)[block.kernel])
            units = busy(loops, architecture, block)
            others = units.pop("others")
            limit = max(units, key=units.get)
            found[f"{name} sm_{architecture}"] = {
                **{unit: round(value) for unit, value in units.items()},
                "limit": limit,
                "hmma share": round(units["tensor"] / (units["tensor"] + others), 3),
            }
            if architecture in ("86", "89"):
                blocks, warps = residency(sass.usage(path)[block.kernel], block)
                found[f"{name} sm_{architecture}"] |= {"blocks": blocks, "warps": warps}
    return found


def as_json(found: dict) -> str:
    """A figure a line, so that a change shows as its line."""
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def as_table(found: dict) -> str:
    lines = ["predicted, nothing measured; cycles of a scheduler for 3 rows of a strip"]
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items())
        lines.append(f"{name:24} {value}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="as tests/kernels/cuda_model.json")
    arguments = parser.parse_args()
    if reason := sass.missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for source in {block.source for block in BLOCKS.values()}:
            for architecture in sass.ARCHITECTURES:
                sass.build(source, architecture, folder)
        found = figures(folder)
    print(as_json(found) if arguments.json else as_table(found))


if __name__ == "__main__":
    main()
