"""dct_l1 with its gradient on 64x3x256x256, as counts for `device_model` (csrc/dct_l1.cu).

TODAY is the form that was measured, nine launches; NEXT the one in csrc now, not yet run on a GPU.
"""

from dataclasses import dataclass

from bench.device_model import Device, Phase, Role

NUMBERS = 64 * 3 * 256 * 256
MAP = 4.0 * NUMBERS  # bytes of all numbers in float32
# A matrix of 256 numbers, split, and how often 64 lines of a block read it: its warps, two of
# which share columns, each for itself. L1 has 92 KB beside two blocks' shared memory: no reuse.
MATRIX, READERS, BLOCKS = 128 * 1024, 2, NUMBERS // (64 * 256)
# After the passes: the partial sums to float64, added, scaled, to float32, and the 1 that the
# gradient begins with; then the gradient times the loss's, read and written.
SMALL_LAUNCHES, SCALED = 5, 2 * MAP


@dataclass(frozen=True)
class Passes:
    """Launches one after another, each of phases that all warps are in at the same time."""

    launches: tuple[tuple[Phase, ...], ...]
    chunks: int  # times that all of them run

    def seconds(self, device: Device) -> float:
        passes = sum(
            device.launch + sum(phase.seconds(device) for phase in phases)
            for phases in self.launches
        )
        after = (SMALL_LAUNCHES + 1) * device.launch + SCALED / device.bandwidth
        return self.chunks * passes + after


CHUNKS = 3
# 256 blocks of 8 warps, two on a multiprocessor.
_RESIDENT = ((4,),)


def _split(instructions: int, loads: int, dram: float, l2: float = 0) -> Phase:
    """Four times 4 pairs of numbers a thread, loaded and split into shared memory."""
    role = Role(instructions=instructions, wavefronts=4 * loads + 16, trips=1)
    return Phase((role,), _RESIDENT, 4, dram / CHUNKS, l2 / CHUNKS)


def _multiply(mma: int, instructions: int, loads: int) -> Phase:
    """8 steps of 16 numbers; fragments of the matrix are waited for in either half."""
    role = Role(mma=mma, instructions=instructions, wavefronts=4 * (loads + 8), trips=2)
    return Phase((role,), _RESIDENT, 8, l2=MATRIX * READERS * BLOCKS / CHUNKS)


def _store(instructions: int, lines: int, l2: float) -> Phase:
    """64 numbers a thread, stored one by one, each time to `lines` lines of memory."""
    role = Role(instructions=instructions, wavefronts=64 * lines)
    return Phase((role,), _RESIDENT, 1, l2=l2 / CHUNKS)


# What lies between two passes is found in L2, and is written back to device memory some time later:
# while the next pass loads.
TODAY = Passes(
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


# One launch, whose blocks are in any pass: a warp's work on 64 lines in all three passes, by the
# loops of the machine code for sm_90a. The matrix is read once a block in each of four products;
# device memory moves the pictures and the gradient, L2 what is between as well.
_TASKS = Role(mma=1408, instructions=13112, trips=44, handoffs=20)
_ROUNDS = BLOCKS / (2 * 132)
NEXT = Passes(
    ((Phase((_TASKS,), _RESIDENT, _ROUNDS, dram=3 * MAP, l2=4 * MATRIX * BLOCKS + 7 * MAP),),),
    chunks=1,
)
