"""Instruction counts of dct_l1 (csrc/dct_l1.cu) with its gradient on 64x3x256x256.

MEASURED is the version with nine launches, NEXT the current one, with one launch. The model was
checked with the first; an H100's time for the second is in bench/results/measurements.
"""

from dataclasses import dataclass

from bench.device_model import Device, Phase, Role

NUMBERS = 64 * 3 * 256 * 256
MAP = 4.0 * NUMBERS  # bytes of all numbers in float32
# Bytes of the split matrix of size 256, and how often a block of 64 lines reads it: two warps that
# share columns load separately; the 92 KB of L1 beside two blocks' shared memory give no reuse.
MATRIX, READERS, BLOCKS = 128 * 1024, 2, NUMBERS // (64 * 256)
# After the passes: partial sums to float64, sum, scaling, to float32, and the initial gradient of
# 1; then the product of the gradient and the incoming gradient, read and written.
SMALL_LAUNCHES, SCALED = 5, 2 * MAP


@dataclass(frozen=True)
class Passes:
    """Sequential launches, each with phases that all warps go through simultaneously."""

    launches: tuple[tuple[Phase, ...], ...]
    chunks: int  # how often all launches run

    def seconds(self, device: Device) -> float:
        passes = sum(
            device.launch + sum(phase.seconds(device) for phase in phases)
            for phases in self.launches
        )
        after = (SMALL_LAUNCHES + 1) * device.launch + SCALED / device.bandwidth
        return self.chunks * passes + after


CHUNKS = 3
# 256 blocks of 8 warps, two per multiprocessor.
_RESIDENT = ((4,),)


def _split(instructions: int, loads: int, dram: float, l2: float = 0) -> Phase:
    """Four steps of 4 pairs of numbers per thread, loaded and split into shared memory."""
    role = Role(instructions=instructions, wavefronts=4 * loads + 16, trips=1)
    return Phase((role,), _RESIDENT, 4, dram / CHUNKS, l2 / CHUNKS)


def _multiply(mma: int, instructions: int, loads: int) -> Phase:
    """8 steps of 16 numbers; each half waits for fragments of the matrix."""
    role = Role(mma=mma, instructions=instructions, wavefronts=4 * (loads + 8), trips=2)
    return Phase((role,), _RESIDENT, 8, l2=MATRIX * READERS * BLOCKS / CHUNKS)


def _store(instructions: int, lines: int, l2: float) -> Phase:
    """64 numbers per thread, stored one at a time, each store to `lines` lines of memory."""
    role = Role(instructions=instructions, wavefronts=64 * lines)
    return Phase((role,), _RESIDENT, 1, l2=l2 / CHUNKS)


# Intermediate results of a pass stay in L2; they are written back to device memory while the next
# pass loads.
MEASURED = Passes(
    (
        (_split(236, 32, 3 * MAP), _multiply(48, 166, 8), _store(600, 4, MAP)),
        (
            _split(200, 16, MAP, MAP),
            _multiply(48, 172, 8),
            _multiply(32, 165, 4),
            _store(800, 4, MAP),
        ),
        (_split(185, 16, MAP, MAP), _multiply(48, 173, 8), _store(700, 8, MAP)),
    ),
    CHUNKS,
)


# One launch whose blocks run different passes at the same time: a warp's work on 64 lines in all
# three passes, counted in machine code for sm_90a. Each block reads the matrix once per product,
# four times. Device memory moves the images and the gradient, L2 also the intermediate results.
_TASKS = Role(mma=1408, instructions=13112, trips=44, handoffs=20)
_ROUNDS = BLOCKS / (2 * 132)
NEXT = Passes(
    ((Phase((_TASKS,), _RESIDENT, _ROUNDS, dram=3 * MAP, l2=4 * MATRIX * BLOCKS + 7 * MAP),),),
    chunks=1,
)
