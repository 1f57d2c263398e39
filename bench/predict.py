"""`python bench/predict.py`: predicted times of the CUDA kernels, next to measured ones.

Needs no GPU and compiles nothing. Only the column "measured" is measured.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import schema
from bench.device_model import H100, H200, Device, Rows
from bench.kernel_counts import ESPAN, MMA_SYNC, PROTOTYPES, SPAN_48_BLOCKS, WGMMA
from bench.loss_counts import MEASURED as LOSS
from bench.loss_counts import NEXT
from bench.share import RESULTS

RECORD = RESULTS / "h100.json"
MEASUREMENTS = RESULTS / "measurements" / "h100.json"
FRAME = "espan, its kernels alone, pixels on the device, CUDA graph"
PROTOTYPE = "wgmma prototype of the block of 3 convolutions, "
LOSS_OP = "dct_l1 with its gradient, CUDA"
SIZES = ((480, 270), (960, 540), (1920, 1080))
# Seconds per launch if a kernel loads weights and sets up barriers before the previous one has
# ended: assumed, not measured.
DEPENDENT_LAUNCH = 1e-6


def frame(kernels: dict[str, Rows], device: Device, width: int, height: int, counts=ESPAN) -> float:
    """Seconds of a frame."""
    return sum(n * kernels[name].seconds(device, width, height) for name, n in counts.items())


def compared(content: dict, rows: list[dict]) -> list[tuple[str, str, float, float]]:
    """(what, input, computed, measured) in seconds of all H100 measurements: numbers of
    `bench/results/measurements/` and rows of a record.
    """
    found = []
    for one in content["measurements"]:
        what, measured = one["what"], one["value"] * {"ms": 1e-3, "us": 1e-6}.get(one["unit"], 0)
        computed = _computed(one["group"], what, one["input"])
        if computed is not None:
            found.append((what, one["input"], computed, measured))
    for row in rows:
        if (row["op"], row["impl"]) == ("dct_l1", "cuda"):
            found.append((LOSS_OP, row["shape"], LOSS.seconds(H100), row["median"]))
    return found


def _computed(group: str, what: str, size: str) -> float | None:
    if group not in ("frames", "kernels", "prototype"):
        return None
    width, height = map(int, size.split("x"))
    if what == FRAME:
        return frame(MMA_SYNC, H100, width, height)
    kernel = MMA_SYNC.get(what) or PROTOTYPES.get(what.removeprefix(PROTOTYPE))
    return kernel.seconds(H100, width, height) if kernel else None


def accuracy(content: dict, rows: list[dict]) -> tuple[list[str], list[list[str]]]:
    """(head, lines) of `compared`."""
    lines = [
        [what, size, f"{1e6 * ours:.1f} us", f"{1e6 * measured:.1f} us", f"{ours / measured:.2f}"]
        for what, size, ours, measured in compared(content, rows)
    ]
    return ["", "input", "model", "measured", "model / measured"], lines


def predicted() -> tuple[list[str], list[list[str]]]:
    """(head, lines) of the wgmma kernels; none of it is measured."""
    lines = []
    for name, kernel in WGMMA.items():
        for width, height in SIZES:
            at = [kernel.seconds(device, width, height) for device in (H100, H200)]
            today = MMA_SYNC.get(name)
            now = f"{1e6 * today.seconds(H100, width, height):.1f} us" if today else ""
            lines.append([name, f"{width}x{height}", now, *(f"{1e6 * t:.1f} us" for t in at)])
    lines += _frames("frame, no check", ESPAN, SIZES)
    lines += _frames("SPAN-48, its six blocks", SPAN_48_BLOCKS, SIZES[:1])
    loss = [f"{1e6 * t:.0f} us" for t in (LOSS.seconds(H100), *map(NEXT.seconds, (H100, H200)))]
    lines.append([LOSS_OP, "64x3x256x256", *loss])
    return ["predicted", "input", "today, H100", "wgmma, H100", "wgmma, H200"], lines


def _frames(name: str, counts: dict, sizes) -> list[list[str]]:
    lines = []
    for launches in ("", ", dependent launches"):
        for width, height in sizes:
            now = counts is ESPAN and not launches
            line = [name + launches, f"{width}x{height}"]
            line.append(f"{1e6 * frame(MMA_SYNC, H100, width, height):.0f} us" if now else "")
            for device in (H100, H200):
                if launches:
                    device = replace(device, launch=DEPENDENT_LAUNCH)
                line.append(f"{1e6 * frame(WGMMA, device, width, height, counts):.0f} us")
            lines.append(line)
    return lines


def main() -> None:
    content, rows = schema.check(MEASUREMENTS), schema.check(RECORD)["rows"]
    for head, lines in (accuracy(content, rows), predicted()):
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        for line in (head, *lines):
            print("  ".join(map(str.ljust, line, widths)).rstrip())
        print()


if __name__ == "__main__":
    main()
