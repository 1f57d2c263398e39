"""Instruction counts of the CUDA kernels, from which `device_model` predicts their times.

A `Rows` describes a kernel: the work of its roles per row, their placement on the schedulers, the
bytes it moves. MMA_SYNC has the mma.sync kernels as measured at commit 4104121, PROTOTYPES variants
of a wgmma prototype; both are counted in machine code for sm_90a (nvcc 13.0, bench/sass.py), except
for the loads that a role waits for, which are counted in the source. WGMMA has the kernels in
csrc/*_wgmma.cu, none of which has been measured yet.
"""

from dataclasses import replace

from bench.device_model import Role, Rows

# csrc, mma.sync. `trips` counts, twice per row: in blocks, the gate, loaded for 16 pixels and used
# immediately; in the tail, the 1x1 inputs. The head loads rows three rows ahead.
FIRST = Role(mma=72, instructions=159, special=32, wavefronts=68, handoffs=3, beyond=6)
MIDDLE = Role(mma=72, instructions=111, special=32, wavefronts=56, handoffs=4, beyond=4)
LAST = Role(mma=72, instructions=134, special=16, wavefronts=64, trips=2, handoffs=2, beyond=2)
SUM = Role(mma=88, instructions=243, wavefronts=116, trips=2, handoffs=3, beyond=4)
UP = Role(mma=108, instructions=475, wavefronts=144, handoffs=3, beyond=2)
HEAD = Role(mma=36, instructions=96, wavefronts=35, handoffs=1, beyond=8)

MMA_SYNC = {
    "block of 3 convolutions, each of 5": Rows(
        (FIRST, MIDDLE, LAST), ((1, 1, 1),), columns=60, bytes=128, reach=3
    ),
    # 6 warps of each role on four schedulers.
    "block of 2 convolutions": Rows(
        (replace(FIRST, beyond=4), LAST), ((2, 1), (1, 2)), columns=94, bytes=128, reach=2
    ),
    "tail": Rows((SUM, UP), ((1, 1),), columns=60, bytes=240, reach=2),
    "head": Rows((HEAD,), ((2,),), columns=16, bytes=67, reach=4, workers=4, together=False),
}

# One warpgroup per convolution and one that loads; rows of 64 pixels (T = 1) or 128 (T = 2). A
# warpgroup waits for its products, then for the gate, then computes the rest. (T, instructions of
# the first, middle and last convolution, special functions of the first two and the last, trips)
_VARIANTS = {
    "64 pixels, tanh": (1, (163, 163, 334), (16, 16), 1),
    "64 pixels, ex2 and rcp": (1, (259, 259, 334), (32, 16), 1),
    "64 pixels, no special functions": (1, (147, 147, 332), (0, 0), 1),
    "64 pixels, no special functions, no gate": (1, (147, 147, 193), (0, 0), 0),
    "128 pixels, tanh": (2, (288, 288, 608), (32, 32), 2),
    "128 pixels, ex2 and rcp": (2, (482, 482, 608), (64, 32), 2),
    "128 pixels, no special functions": (2, (256, 256, 607), (0, 0), 2),
    "128 pixels, no special functions, no gate": (2, (256, 256, 319), (0, 0), 0),
}


def _prototype(tiles: int, instructions, special, trips: int) -> Rows:
    products = (96,) * (6 * tiles)
    hidden = [
        Role(wgmma=products, instructions=count, special=special[0], handoffs=3, beyond=6 - 2 * i)
        for i, count in enumerate(instructions[:2])
    ]
    last = Role(
        wgmma=products,
        instructions=instructions[2],
        special=special[1],
        trips=trips,
        handoffs=1,
        beyond=2,
    )
    loading = Role(instructions=70 * tiles, handoffs=2, beyond=6)
    roles = (loading, *hidden, last)
    return Rows(roles, ((1, 1, 1, 1),), columns=64 * tiles - 4, bytes=128, reach=3)


PROTOTYPES = {name: _prototype(*counts) for name, counts in _VARIANTS.items()}


# Instructions of the warps that load and store rows, each on its own scheduler.
COPIES = 120


def _chain(*roles: Role, columns: int, size: float, blocks: int = 1) -> Rows:
    """Warpgroups that pass rows on, and one that copies; `blocks` per multiprocessor."""
    reach = len(roles)
    copying = Role(instructions=COPIES, handoffs=2, beyond=2 * reach)
    placed = [replace(role, beyond=2 * (reach - i)) for i, role in enumerate(roles)]
    mix = (blocks,) * (reach + 1)
    return Rows((copying, *placed), (mix,), columns, size, reach, workers=blocks)


# Per warp and row of 64 pixels, overlapped with the products of the next row.
HIDDEN = Role(wgmma=(96,) * 6, instructions=150, special=16, handoffs=3, ahead=True)
GATED = Role(wgmma=(96,) * 6, instructions=183, special=16, handoffs=3, ahead=True)
SUMMED = Role(wgmma=(96,) * 6 + (32,) * 4, instructions=275, handoffs=4, ahead=True)
ENLARGED = Role(wgmma=(144,) * 6, instructions=304, handoffs=3, ahead=True)
FIRST_MAPS = Role(wgmma=(160, 128) * 2, instructions=174, handoffs=2, ahead=True, beyond=8)
# 48 channels, one kernel per convolution; two blocks fit on a multiprocessor.
HIDDEN_48 = Role(wgmma=(144,) * 9, instructions=172, special=24, handoffs=3, ahead=True)
GATED_48 = Role(wgmma=(144,) * 9, instructions=238, special=24, handoffs=3, ahead=True)

# Kernels in which these roles were counted: (kernel, rows per loop, for each role the instructions
# of a row that do not run): the sums of two of the three rows are not taken, and the tail has
# branches for float16 and for less than 16 bytes, which an H100 counted.
COUNTED = [
    ("spab_wgmma.cu wgmma_kernel<4, 3, 2>", 1, ((HIDDEN, 66), (HIDDEN, 66), (GATED, 66))),
    ("spab_wgmma.cu wgmma_kernel<4, 2, 2>", 1, ((GATED, 66), (HIDDEN, 68))),
    ("tail_wgmma.cu tail_wgmma_kernel<4, 2, 4>", 1, ((ENLARGED, 527), (SUMMED, 66))),
    ("conv9x9_head_wgmma.cu head_wgmma_kernel<unsigned char>", 9, ((FIRST_MAPS, 0),)),
    ("conv3x3_wgmma.cu wgmma_kernel<6, 1, 1>", 1, ((HIDDEN_48, 98),)),
    ("conv3x3_wgmma.cu wgmma_kernel<6, 1, 2>", 1, ((GATED_48, 98),)),
]

WGMMA = {
    "block of 3 convolutions, each of 5": _chain(HIDDEN, HIDDEN, GATED, columns=60, size=128),
    "block of 2 convolutions": _chain(HIDDEN, GATED, columns=62, size=128),
    "tail": _chain(SUMMED, ENLARGED, columns=60, size=240),
    "head": Rows((FIRST_MAPS,), ((2,),), columns=64, bytes=67, reach=4, workers=2, together=False),
    "48 channels, convolution and SiLU": _chain(HIDDEN_48, columns=64, size=192, blocks=2),
    "48 channels, convolution and gate": _chain(GATED_48, columns=64, size=288, blocks=2),
}

# Launches of each kernel per frame.
ESPAN = {
    "head": 1,
    "block of 3 convolutions, each of 5": 5,
    "block of 2 convolutions": 1,
    "tail": 1,
}
# The six blocks of SPAN with 48 channels.
SPAN_48_BLOCKS = {
    "48 channels, convolution and SiLU": 12,
    "48 channels, convolution and gate": 6,
}
