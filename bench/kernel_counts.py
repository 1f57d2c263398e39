"""Instruction counts of the CUDA kernels, from which `device_model` predicts their times.

A `Rows` describes a kernel: the work of its roles per row, their placement on the schedulers, the
bytes it moves. MMA_SYNC has the mma.sync kernels as measured at commit 4104121, PROTOTYPES variants
of a wgmma prototype; both are counted in machine code for sm_90a (nvcc 13.0, bench/sass.py), except
for the loads that a role waits for, which are counted in the source. WGMMA has the kernels in
csrc/*_wgmma.cu, measured at commit 3c93797. CHANGES and EVEN are kernels that do not exist yet.
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
    "block of 3 convolutions": Rows(
        (FIRST, MIDDLE, LAST), ((1, 1, 1),), columns=60, bytes=128, reach=3, slots=3
    ),
    # 6 warps of each role on four schedulers.
    "block of 2 convolutions": Rows(
        (replace(FIRST, beyond=4), LAST),
        ((2, 1), (1, 2)),
        columns=94,
        bytes=128,
        reach=2,
        slots=3,
    ),
    "tail": Rows((SUM, UP), ((1, 1),), columns=60, bytes=240, reach=2, slots=3),
    # A pair of warps has its own strip and loads nine rows ahead.
    "head": Rows(
        (HEAD,), ((2,),), columns=16, bytes=67, reach=4, slots=36, workers=4, together=False
    ),
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
    return Rows(roles, ((1, 1, 1, 1),), columns=64 * tiles - 4, bytes=128, reach=3, slots=4)


PROTOTYPES = {name: _prototype(*counts) for name, counts in _VARIANTS.items()}


# Instructions of the warps that load and store rows, each on its own scheduler.
COPIES = 120


def _chain(*roles: Role, columns: int, size: float, slots: int, blocks: int = 1) -> Rows:
    """Warpgroups that pass rows on, and one that copies; `blocks` per multiprocessor, each with
    `slots` slots in its smallest ring of rows from device memory.
    """
    reach = len(roles)
    copying = Role(instructions=COPIES, handoffs=2, beyond=2 * reach)
    placed = [replace(role, beyond=2 * (reach - i)) for i, role in enumerate(roles)]
    mix = (blocks,) * (reach + 1)
    return Rows(
        (copying, *placed),
        (mix,),
        columns,
        size,
        reach,
        slots=blocks * slots,
        workers=blocks,
        together=False,
    )


def _role(wgmma, instructions, overlapped, handoffs, during, special=0) -> Role:
    """A warp's work on a row of 64 pixels. Handoffs: its waits for rows, slots and other warps, and
    the publication of its row; `during` of them overlap with its products.
    """
    return Role(
        wgmma=wgmma,
        instructions=instructions,
        special=special,
        handoffs=handoffs,
        overlapped=overlapped,
        overlapped_handoffs=during,
    )


HIDDEN = _role((96,) * 6, 150, 62, 3, 1, special=16)
GATED = _role((96,) * 6, 183, 86, 4, 1, special=16)
PLAIN = _role((96,) * 6, 121, 40, 3, 1)
SUMMED = _role((96,) * 6 + (32,) * 4, 275, 138, 5, 3)
ENLARGED = _role((144,) * 6, 304, 208, 2, 1)
FIRST_MAPS = replace(_role((160, 128) * 2, 174, 77, 2, 0), beyond=8)
# 48 channels, one kernel per convolution; two blocks fit on a multiprocessor.
HIDDEN_48 = _role((144,) * 9, 172, 75, 3, 1, special=24)
GATED_48 = _role((144,) * 9, 238, 121, 4, 1, special=24)
PLAIN_48 = _role((144,) * 9, 148, 51, 3, 1)

# Kernels in which these roles were counted: (kernel, rows per loop, for each role the instructions
# of a row that do not run, and how many of these stand among the overlapped ones): the sums of two
# of the three rows are not taken, and the tail has branches for float16 and for less than 16 bytes.
COUNTED = [
    (
        "spab_wgmma.cu wgmma_kernel<4, 3, 2>",
        1,
        ((HIDDEN, 66, 0), (HIDDEN, 66, 0), (GATED, 66, 0)),
    ),
    ("spab_wgmma.cu wgmma_kernel<4, 2, 2>", 1, ((GATED, 66, 0), (HIDDEN, 68, 0))),
    ("tail_wgmma.cu tail_wgmma_kernel<4, 2, 4>", 1, ((ENLARGED, 527, 430), (SUMMED, 66, 0))),
    ("conv9x9_head_wgmma.cu head_wgmma_kernel<unsigned char>", 9, ((FIRST_MAPS, 0, 0),)),
    ("conv3x3_wgmma.cu wgmma_kernel<4, 1, 0>", 1, ((PLAIN, 66, 0),)),
    ("conv3x3_wgmma.cu wgmma_kernel<6, 1, 0>", 1, ((PLAIN_48, 98, 0),)),
    ("conv3x3_wgmma.cu wgmma_kernel<6, 1, 1>", 1, ((HIDDEN_48, 98, 0),)),
    ("conv3x3_wgmma.cu wgmma_kernel<6, 1, 2>", 1, ((GATED_48, 98, 0),)),
]

WGMMA = {
    "head": Rows(
        (FIRST_MAPS,), ((2,),), columns=64, bytes=67, reach=4, slots=6, workers=2, together=False
    ),
    "block of 3 convolutions": _chain(HIDDEN, HIDDEN, GATED, columns=60, size=128, slots=4),
    "block of 2 convolutions": _chain(HIDDEN, GATED, columns=62, size=128, slots=4),
    "tail": _chain(SUMMED, ENLARGED, columns=60, size=240, slots=3),
    "convolution of 32 channels": _chain(PLAIN, columns=64, size=128, slots=3, blocks=2),
    "convolution of 48 channels": _chain(PLAIN_48, columns=64, size=192, slots=3, blocks=2),
    "48 channels, convolution and SiLU": _chain(HIDDEN_48, columns=64, size=192, slots=3, blocks=2),
    "48 channels, convolution and gate": _chain(GATED_48, columns=64, size=288, slots=3, blocks=2),
}

EVEN = {name: replace(kernel, even=True) for name, kernel in WGMMA.items()}
# With bulk stores, the tail's second role passes its row to a thread that copies, like the last
# role of a block: 76 instructions of its own stores less, 13 for the ring.
STAGED = _role((144,) * 6, 241, 135, 3, 1)
# (change, kernel, the changed kernel); the last of a kernel includes the others.
CHANGES = [
    (
        "two strips on a multiprocessor",
        "block of 2 convolutions",
        _chain(HIDDEN, GATED, columns=62, size=128, slots=4, blocks=2),
    ),
    ("bulk stores", "tail", _chain(SUMMED, STAGED, columns=60, size=240, slots=3)),
    (
        "bulk stores, rings of 6 rows",
        "tail",
        _chain(SUMMED, STAGED, columns=60, size=240, slots=6),
    ),
]

# Launches of each kernel per frame.
ESPAN = {
    "head": 1,
    "block of 3 convolutions": 5,
    "block of 2 convolutions": 1,
    "tail": 1,
}
# A block of 48 channels, and the six of SPAN.
BLOCK_48 = {
    "48 channels, convolution and SiLU": 2,
    "48 channels, convolution and gate": 1,
}
SPAN_48_BLOCKS = {name: 6 * count for name, count in BLOCK_48.items()}
