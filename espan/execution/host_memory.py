"""Checks before any work that a run fits into host memory; raises LimitError if not."""

from torch import Tensor

from espan.errors import LimitError
from espan.execution.runner import Runner
from espan.images.alpha import BYTES
from espan.sizes import passes
from espan.system import memory


def check(runner: Runner, pixels: Tensor, size: tuple[int, int], copy: int) -> None:
    """Raises LimitError if the result, of `size` (height, width), and one tile do not fit.

    pixels: (N, C, H, W). copy: bytes per pixel of the result for a copy that the caller makes.
    """
    refuse_beyond(needed(runner, pixels, size, copy), pixels, size)


def refuse_beyond(need: int, pixels: Tensor, size: tuple[int, int], how: str = "") -> None:
    """Raises LimitError if fewer than `need` bytes are free; `how` ends the phrase on memory."""
    free = memory.missing(need)
    if free is not None:
        height, width = pixels.shape[2:]
        raise LimitError(
            f"{width} x {height} pixels to {size[1]} x {size[0]} need {need / 2**20:,.0f} MiB of "
            f"memory{how}, {free / 2**20:,.0f} MiB are free (smaller tiles need less)"
        )


def needed(runner: Runner, pixels: Tensor, size: tuple[int, int], copy: int) -> int:
    """Bytes of host memory for the result, one tile and the image between two passes."""
    n, channels, *before = pixels.shape
    pixel = channels * pixels.element_size() if pixels.device.type == "cpu" else 0
    most, held = n * pixel * size[0] * size[1], 0
    for made in passes(before, size, runner.scale):
        height, width = before
        need = (runner.host_memory(n, height, width, pixels.dtype) if n else 0) + held
        if channels in (2, 4):
            need += (BYTES + n * channels * pixels.element_size()) * height * width
        whole = height * runner.scale, width * runner.scale
        need += n * pixel * (made[0] * made[1] + (whole != made) * whole[0] * whole[1])
        most, held = max(most, need), n * pixel * made[0] * made[1]
        before = [*made]
    return most + n * size[0] * size[1] * copy
