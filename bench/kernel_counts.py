"""The CUDA kernels as counts for `device_model`: today's, a prototype's, and those to be written.

A kernel is data: what its roles do in a step, how they lie on the schedulers, the bytes it moves.
Counts of TODAY and PROTOTYPES were read from machine code for sm_90a (nvcc 13.0, bench/sass.py),
with the loads that a role waits for from its source; those of PLANNED are estimates until there
is code to count. To describe a new kernel, add it to PLANNED, and to FRAMES if a frame runs it.
"""

from dataclasses import replace

from bench.device_model import Role, Rows

# csrc, mma.sync. `trips` of the blocks: the gate, loaded for 16 pixels and used at once, twice a
# row; of the tail: the 1x1 inputs, twice a row. The head asks for a row three rows ahead.
FIRST = Role(mma=72, instructions=159, special=32, wavefronts=68, handoffs=3, beyond=6)
MIDDLE = Role(mma=72, instructions=111, special=32, wavefronts=56, handoffs=4, beyond=4)
LAST = Role(mma=72, instructions=134, special=16, wavefronts=64, trips=2, handoffs=2, beyond=2)
SUM = Role(mma=88, instructions=243, wavefronts=116, trips=2, handoffs=3, beyond=4)
UP = Role(mma=108, instructions=475, wavefronts=144, handoffs=3, beyond=2)
HEAD = Role(mma=36, instructions=96, wavefronts=35, handoffs=1, beyond=8)

TODAY = {
    "block of 3 convolutions, each of 5": Rows(
        (FIRST, MIDDLE, LAST), ((1, 1, 1),), columns=60, bytes=128, reach=3
    ),
    # 6 warps of either role on four schedulers.
    "block of 2 convolutions": Rows(
        (replace(FIRST, beyond=4), LAST), ((2, 1), (1, 2)), columns=94, bytes=128, reach=2
    ),
    "tail": Rows((SUM, UP), ((1, 1),), columns=60, bytes=240, reach=2),
    "head": Rows((HEAD,), ((2,),), columns=16, bytes=67, reach=4, walkers=4, together=False),
}

# Where the roles of TODAY were counted.
COUNTED = [
    ("spab.cu", "rows_kernel<32, 3, 0, false>", (FIRST, MIDDLE, LAST)),
    ("spab.cu", "rows_kernel<32, 2, 0, false>", (FIRST, LAST)),
    ("tail.cu", "tail_kernel<4, 2>", (SUM, UP)),
    ("conv9x9_head.cu", "head_kernel<unsigned char>", (HEAD,)),
]

# One warpgroup a convolution and one that loads; rows of 64 pixels (T = 1) or 128 (T = 2). It
# waits for its products, then for the gate, then computes the rest. Instructions of the first,
# the middle and the last convolution, special functions of the first two and of the last.
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


def _chain(*roles: Role, columns: int, size: float, channels_loaded: int = 10) -> Rows:
    """Warpgroups that hand rows on, behind a warpgroup one thread of which loads by TMA."""
    reach = len(roles)
    loading = Role(instructions=channels_loaded, handoffs=2, beyond=2 * reach)
    placed = [replace(role, beyond=2 * (reach - i)) for i, role in enumerate(roles)]
    return Rows((loading, *placed), ((1,) * (reach + 1),), columns, size, reach)


# Products in flight while the row before is finished. Instructions of a warp and row of 64 pixels:
# 16 numbers a lane with their bias, SiLU or gate, conversion and store, and the barriers.
_HIDDEN = Role(wgmma=(96,) * 6, instructions=150, special=16, handoffs=3, ahead=True)
_GATED = Role(wgmma=(96,) * 6, instructions=210, special=16, handoffs=3, ahead=True)
# What the prototype's second form compiles to: 64-bit addresses, stores of four bytes.
_HIDDEN_AS_IS = replace(_HIDDEN, instructions=206)
_GATED_AS_IS = replace(_GATED, instructions=330)
# The tail: 3x3 and two 1x1 convolutions in one row of sums; then 3 rows x 48 channels, 24 numbers a
# lane, rounded and staged as today.
_SUMMED = Role(wgmma=(96,) * 6 + (32,) * 4, instructions=170, handoffs=4, ahead=True)
_ENLARGED = Role(wgmma=(144,) * 6, instructions=440, handoffs=3, ahead=True)
# 9 open rows x 32 channels as n160 and n128, A from registers: shifted copies as today.
_HEAD = Role(wgmma=(160, 128) * 2, instructions=190, handoffs=2, ahead=True, beyond=8)
# 48 channels: 9 steps of 16 channels and columns, 3 rows x 48 channels.
_HIDDEN_48 = Role(wgmma=(144,) * 9, instructions=220, special=24, handoffs=3, ahead=True)
_GATED_48 = Role(wgmma=(144,) * 9, instructions=310, special=24, handoffs=3, ahead=True)

PLANNED = {
    "block of 3 convolutions, each of 5": _chain(_HIDDEN, _HIDDEN, _GATED, columns=60, size=128),
    "block of 2 convolutions": _chain(_HIDDEN, _GATED, columns=62, size=128),
    "tail": _chain(_SUMMED, _ENLARGED, columns=60, size=240),
    "head": Rows((_HEAD,), ((2,),), columns=64, bytes=67, reach=4, walkers=2, together=False),
    "block of 3 convolutions, code of the prototype": _chain(
        _HIDDEN_AS_IS, _HIDDEN_AS_IS, _GATED_AS_IS, columns=60, size=128, channels_loaded=70
    ),
    # Weights of two convolutions are 138 KB; those of three leave no room for rows.
    "48 channels, 2 convolutions": _chain(_HIDDEN_48, _HIDDEN_48, columns=62, size=192),
    "48 channels, 1 convolution and gate": _chain(_GATED_48, columns=62, size=288),
}

# How often a frame runs each kernel.
ESPAN = {
    "head": 1,
    "block of 3 convolutions, each of 5": 5,
    "block of 2 convolutions": 1,
    "tail": 1,
}
# The blocks of SPAN with 48 channels; its head and tail have no design yet.
SPAN_48_BLOCKS = {"48 channels, 2 convolutions": 6, "48 channels, 1 convolution and gate": 6}
