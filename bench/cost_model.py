"""`python bench/cost_model.py`: predicts the cost of the CUDA kernels, without a GPU.

Compiles the blocks of the network, counts the instructions of their inner loops and compares them
with the rates of a multiprocessor (docs/performance.md). Nothing here is measured. `predict.py`
computes times that include the waits of warps. --json prints the numbers pinned by a test.
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

SCHEDULERS = 4  # per multiprocessor; each issues one instruction per cycle
MUFU_CYCLES = 8  # of a scheduler's 4 lanes per warp
REGISTERS, MAX_WARPS = 65536, 48  # per multiprocessor of compute capability 8.6 and 8.9
SHARED = 100 * 1024, 1024  # their bytes of shared memory, and the bytes reserved per block

# Cycles of a scheduler's tensor core for an HMMA.16816 with float accumulation: 2,048 multiply-adds
# at the rates stated by the vendor, GeForce's on 8.6 to 12.0. The rate on Blackwell's 10.0 is not
# known and assumed to equal 9.0's.
HMMA_CYCLES = {"80": 8, "86": 32, "90a": 4, "100": 4, "120": 32}
# With fp16 accumulation, where that differs.
FP16_CYCLES = {"86": 16, "120": 16}
# The fraction of that rate that mma.sync is reported to reach on Hopper.
REACHED = {"90a": 0.629, "100": 0.629}


@dataclass
class Block:
    """spab: `convs` convolutions of 32 channels in one kernel (csrc/common/strip.cuh)."""

    convs: int
    columns: int  # computed columns of a strip
    warps: int = 12
    fp16_accumulation: bool = False
    source = "spab.cu"
    rows = 3  # per loop iteration

    @property
    def kernel(self) -> str:
        return f"rows_kernel<32, {self.convs}, 0, {str(self.fp16_accumulation).lower()}>"

    @property
    def hmma_cycles(self) -> dict[str, int]:
        """Cycles by architecture, for the architectures that run this kernel."""
        return FP16_CYCLES if self.fp16_accumulation else HMMA_CYCLES


BLOCKS = {
    "spab, 3 convs": Block(3, 64),
    "spab, 2 convs": Block(2, 96),
    "spab, 3 convs, fp16 accumulation": Block(3, 64, fp16_accumulation=True),
    "spab, 2 convs, fp16 accumulation": Block(2, 64, 8, fp16_accumulation=True),
}
# ESPAN x4 with float16 NC/8HW8 feature maps and uint8 images: the number of kernels of each kind,
# and bytes of device memory per pixel, with halos served by L2.
NETWORK = {"spab, 3 convs": 5, "spab, 2 convs": 1}
BYTES = {"head": 3 + 64, "spab, 3 convs": 128, "spab, 2 convs": 128, "tail": 3 * 64 + 48}


def busy(loops: list, architecture: str, block: Block) -> dict[str, float]:
    """Cycles that each unit of a scheduler is busy while a block processes `block.rows` rows."""
    # Each loop runs in warps / convs warps, spread over the schedulers.
    share = block.warps / block.convs / SCHEDULERS

    def count(*names: str) -> float:
        return share * sum(sass.total(loop, *names) for loop in loops)

    # Wavefronts of 128 bytes, one per cycle for all schedulers.
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
    """(blocks, warps) resident on a multiprocessor of 8.6 or 8.9."""
    registers = ceil(used["registers"] / 8) * 8 * 32 * block.warps
    blocks = min(
        REGISTERS // registers,
        SHARED[0] // (used["shared"] + SHARED[1]),
        MAX_WARPS // block.warps,
    )
    return blocks, blocks * block.warps


def network_bytes() -> int:
    """Bytes of device memory per input pixel."""
    return sum(BYTES[name] * NETWORK.get(name, 1) for name in BYTES)


def figures(folder: Path) -> dict:
    """All predictions, from the cubins that `sass.build` wrote to `folder`."""
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
            if architecture == "86":
                blocks, warps = residency(sass.usage(path)[block.kernel], block)
                found[f"{name} sm_{architecture}"] |= {"blocks": blocks, "warps": warps}
    return found


def as_json(found: dict) -> str:
    """JSON with one prediction per line, for readable diffs."""
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def as_table(found: dict) -> str:
    lines = ["predicted, not measured: cycles of a scheduler for 3 rows of a strip"]
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items())
        lines.append(f"{name:24} {value}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--json", action="store_true", help="print in the format of tests/kernels/cuda_model.json"
    )
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
