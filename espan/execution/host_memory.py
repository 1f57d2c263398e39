"""Whether a run fits into host memory: asked before any work, answered by a LimitError."""

from torch import Tensor

from espan.errors import LimitError
from espan.execution.runner import Runner
from espan.images.alpha import BYTES
from espan.sizes import passes
from espan.system import memory


def check(runner: Runner, planes: Tensor, size: tuple[int, int], copy: int) -> None:
    """LimitError if the result, of `size` (height, width), and one tile cannot fit.

    planes: (N, C, H, W). copy: bytes per pixel of the result that the caller takes for a copy.
    """
    refuse_beyond(needed(runner, planes, size, copy), planes, size)


def refuse_beyond(need: int, planes: Tensor, size: tuple[int, int], how: str = "") -> None:
    """LimitError if `need` bytes are more than are free; `how` the result is made, if not whole."""
    free = memory.missing(need)
    if free is not None:
        height, width = planes.shape[2:]
        raise LimitError(
            f"{width} x {height} pixels to {size[1]} x {size[0]} need {need / 2**20:,.0f} MiB of "
            f"memory{how}, {free / 2**20:,.0f} MiB are free (smaller tiles need less)"
        )


def needed(runner: Runner, planes: Tensor, size: tuple[int, int], copy: int) -> int:
    """Bytes of host memory that the result and one tile take, and what lies between two passes."""
    n, channels, *before = planes.shape
    pixel = channels * planes.element_size() if planes.device.type == "cpu" else 0
    most, held = n * pixel * size[0] * size[1], 0
    for made in passes(before, size, runner.scale):
        height, width = before
        need = (runner.host_memory(n, height, width, planes.dtype) if n else 0) + held
        if channels in (2, 4):
            need += (BYTES + n * channels * planes.element_size()) * height * width
        whole = height * runner.scale, width * runner.scale
        need += n * pixel * (made[0] * made[1] + (whole != made) * whole[0] * whole[1])
        most, held = max(most, need), n * pixel * made[0] * made[1]
        before = [*made]
    return most + n * size[0] * size[1] * copy
