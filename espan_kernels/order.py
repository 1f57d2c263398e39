"""Measured times of the ops' implementations, and the order in which calls try them.

On a GPU whose compute capability is in the table: fastest first; an implementation that was slower
than eager, or not timed with it, runs only when named. On other GPUs, and for ops that are not in
the table: the op's own order, without kernels that were slower than eager in every timing.
"""

from itertools import pairwise

# Milliseconds by compute capability, op and image size, smallest first: float16, float32 for the
# DCT. tests/kernels/test_order.py compares them with bench/results/.
MILLISECONDS = {
    (9, 0): {
        "span_gate": {(480, 270): {"cuda": 0.0153, "triton": 0.0153, "eager": 0.0320}},
        "conv3x3": {(480, 270): {"triton": 0.0288, "cuda": 0.0406, "eager": 0.0574}},
        "conv9x9_head": {(480, 270): {"cuda": 0.0306, "triton": 0.0360, "eager": 0.0674}},
        "spab": {(480, 270): {"cuda": 0.0651, "triton": 0.0693, "eager": 0.131}},
        "tail": {(480, 270): {"cuda": 0.0666, "triton": 0.0752, "eager": 0.198}},
        "dct2": {(256, 256): {"eager": 0.371, "triton": 1.35}},
        "dct_l1": {(256, 256): {"cuda": 0.406, "eager": 1.03}},
    },
}

# Ops whose wgmma kernel a plan chooses by default on compute capability 9.0: correct and faster in
# NC/8HW8 layout, by bench/results/measurements/h100_wgmma.json.
WGMMA_FIRST: frozenset[str] = frozenset({"conv3x3", "conv9x9_head", "spab", "tail"})


def _nearest(op: str, capability: tuple[int, int], pixels: int):
    """The timed size whose ratio to `pixels` is nearest to 1, or None if there is none."""
    sizes = [*MILLISECONDS.get(capability, {}).get(op, ())]
    for size, larger in pairwise(sizes):
        if pixels**2 < size[0] * size[1] * larger[0] * larger[1]:
            return size
    return sizes[-1] if sizes else None


def _slower(op: str, impl: str) -> list[tuple]:
    """(compute capability, size) of all timings of `impl` if it was slower than eager in each."""
    timed = [
        (capability, size, times)
        for capability, ops in MILLISECONDS.items()
        for size, times in ops.get(op, {}).items()
        if impl in times
    ]
    if any(times[impl] <= times["eager"] for *_, times in timed):
        return []
    return [(capability, size) for capability, size, _ in timed]


def fastest_first(op: str, impls: list[str], capability: tuple[int, int], pixels: int) -> list[str]:
    """The members of `impls` that a call with impl=None tries, fastest first.

    impls: all of the op, in its own order. pixels: height times width of the images.
    """
    size = _nearest(op, capability, pixels)
    if size is None:
        return [impl for impl in impls if not _slower(op, impl)]
    times = MILLISECONDS[capability][op][size]
    taken = [impl for impl in impls if impl in times and times[impl] <= times["eager"]]
    return sorted(taken, key=lambda impl: times[impl])


def exclusion_reason(op: str, impl: str, capability: tuple[int, int], pixels: int) -> str:
    """Why `fastest_first` excludes an implementation."""
    size = _nearest(op, capability, pixels)
    if size is None:
        capability, size = _slower(op, impl)[0]
    times = MILLISECONDS[capability][op][size]
    where = f"{size[0]}x{size[1]}, compute capability {capability[0]}.{capability[1]}"
    if impl not in times:
        return f"not timed against eager ({where})"
    return f"slower than eager where measured: {times[impl]} ms vs {times['eager']} ms ({where})"
