"""`python bench/predict.py`: modelled times of the CUDA kernels, next to measured ones.

Needs no GPU and compiles nothing. Only the column "measured" is measured.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import schema
from bench.device_model import H100, H200, Device, Rows
from bench.kernel_counts import (
    BLOCK_48,
    CHANGES,
    ESPAN,
    EVEN,
    MMA_SYNC,
    PROTOTYPES,
    SPAN_48_BLOCKS,
    WGMMA,
)
from bench.loss_counts import MEASURED as LOSS
from bench.loss_counts import NEXT as LOSS_NEXT
from bench.share import RESULTS

RECORD = RESULTS / "h100.json"
MEASUREMENTS = tuple(RESULTS / "measurements" / f"{name}.json" for name in ("h100", "h100_wgmma"))
FRAME = "espan, its kernels alone, pixels on the device, CUDA graph"
WGMMA_FRAME = "espan on wgmma, pixels on the device, with the check of its result, CUDA graph"
PROTOTYPE = "wgmma prototype of the block of 3 convolutions, "
LOSS_OP = "dct_l1 with its gradient, CUDA"
# The measurement of its current version, which has one launch.
LOSS_NOW = ("CUDA kernel, CUDA graph", "64x3x256x256")
LOSS_OP_NOW = f"{LOSS_OP}, one launch"
SIZES = ((480, 270), (960, 540), (1920, 1080))
# Seconds from the bench's first event to the kernel and from it to the second event, with a flushed
# L2 cache: what the bench measured for four kernels less what Nsight Compute did, on average.
TIMED = 7e-6
# Seconds per launch, like Device.launch, of kernels that load weights and set up barriers before
# the previous one has ended: fitted to the frame of 480x270.
DEPENDENT_LAUNCH = 1.5e-6

Kernels = dict[str, Rows]


def frame(kernels: Kernels, device: Device, width: int, height: int, counts=ESPAN) -> float:
    """Seconds of a frame, or of what else `counts` lists: {kernel: launches}."""
    return sum(n * kernels[name].seconds(device, width, height) for name, n in counts.items())


def dependent(device: Device) -> Device:
    """The device with launches that overlap."""
    return replace(device, launch=DEPENDENT_LAUNCH)


def compared(content: dict) -> list[tuple[str, str, float, float]]:
    """(what, input, computed, measured) in seconds of a file of `bench/results/measurements/`, and
    of the rows of the record made at the same commit.
    """
    found = []
    for one in content["measurements"]:
        what, measured = one["what"], one["value"] * {"ms": 1e-3, "us": 1e-6}.get(one["unit"], 0)
        computed = _computed(one["group"], what, one["input"])
        if computed is not None:
            what = LOSS_OP_NOW if (what, one["input"]) == LOSS_NOW else what
            found.append((what, one["input"], computed, measured))
    record = schema.check(RECORD)
    for row in record["rows"]:
        same = record["machine"]["commit"] == content["machine"]["commit"]
        if same and (row["op"], row["impl"]) == ("dct_l1", "cuda"):
            found.append((LOSS_OP, row["shape"], LOSS.seconds(H100), row["median"]))
    return found


def _computed(group: str, what: str, size: str) -> float | None:
    if (what, size) == LOSS_NOW:
        return TIMED + LOSS_NEXT.seconds(H100)
    if group not in ("frames", "kernels", "prototype", "hopper", "nsight"):
        return None
    width, height = map(int, size.split("x"))
    if what == FRAME:
        return frame(MMA_SYNC, H100, width, height)
    if what == WGMMA_FRAME:
        return TIMED + frame(WGMMA, dependent(H100), width, height)
    if group in ("hopper", "nsight"):
        name, _, how = what.rpartition(", ")
        overhead = {"wgmma": TIMED, "Nsight Compute": 0.0}.get(how)
        if overhead is None:
            return None
        counts = {name: 1} if name in WGMMA else BLOCK_48
        return overhead + frame(WGMMA, H100, width, height, counts)
    kernel = MMA_SYNC.get(what.removesuffix(", each of 5"))
    kernel = kernel or PROTOTYPES.get(what.removeprefix(PROTOTYPE))
    return kernel.seconds(H100, width, height) if kernel else None


def accuracy(content: dict) -> tuple[list[str], list[list[str]]]:
    """(head, lines) of `compared`."""
    lines = [
        [what, size, f"{1e6 * ours:.1f} us", f"{1e6 * measured:.1f} us", f"{ours / measured:.2f}"]
        for what, size, ours, measured in compared(content)
    ]
    return ["", "input", "model", "measured", "model / measured"], lines


def predicted() -> tuple[list[str], list[list[str]]]:
    """(head, lines) of the kernels as they are and of changes that are not built."""
    devices = {"H100": H100, "H200": H200}
    head = ["us", *(f"{name}, {w}x{h}" for name in devices for w, h in SIZES)]

    def line(what: str, kernels: Kernels, counts: dict[str, int], launch=lambda device: device):
        at = [
            frame(kernels, launch(device), *size, counts)
            for device in devices.values()
            for size in SIZES
        ]
        return [what, *(f"{1e6 * t:.1f}" if t < 1e-4 else f"{1e6 * t:.0f}" for t in at)]

    variants = {"as it is": WGMMA, "rows shared out evenly": EVEN}
    lines = []
    for name in ESPAN:
        own = variants | {what: {name: k} for what, of, k in CHANGES if of == name}
        lines += [line(f"{name}: {what}", kernels, {name: 1}) for what, kernels in own.items()]
    changed = {f"{name}: {what}": WGMMA | {name: kernel} for what, name, kernel in CHANGES}
    everything = EVEN | {name: replace(k, even=True) for _, name, k in CHANGES}
    for what, kernels in (variants | changed | {"all changes": everything}).items():
        lines.append(line(f"frame, {what}", kernels, ESPAN, dependent))
    lines.append(line("SPAN-48, its six blocks, as they are", WGMMA, SPAN_48_BLOCKS, dependent))
    return head, lines


def main() -> None:
    tables = [accuracy(schema.check(path)) for path in MEASUREMENTS]
    for head, lines in (*tables, predicted()):
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        for line in (head, *lines):
            print("  ".join(map(str.ljust, line, widths)).rstrip())
        print()


if __name__ == "__main__":
    main()
