"""Whether a run fits into host memory: asked before any work, answered by a LimitError."""

from torch import Tensor

from espan.errors import LimitError
from espan.execution.runner import Runner
from espan.images.alpha import BYTES
from espan.system import memory


def check(runner: Runner, planes: Tensor, size: tuple[int, int], scale: float, copy: int) -> None:
    """LimitError if the result and one tile cannot fit.

    planes: (N, C, H, W), to be `scale` times larger: of `size`, (height, width). copy: bytes per
    pixel of the result that the caller takes for a copy.
    """
    need = needed(runner, planes, size, scale != runner.scale, copy)
    free = memory.missing(need)
    if free is not None:
        height, width = planes.shape[2:]
        raise LimitError(
            f"{width} x {height} pixels x{scale:g} need {need / 2**20:,.0f} MiB of memory, "
            f"{free / 2**20:,.0f} MiB are free (smaller tiles need less)"
        )


def needed(runner: Runner, planes: Tensor, size: tuple[int, int], resized: bool, copy: int) -> int:
    """Bytes of host memory that the result and one tile take."""
    n, channels, height, width = planes.shape
    need = runner.host_memory(n, height, width, planes.dtype) if n else 0
    need += n * size[0] * size[1] * copy
    if channels in (2, 4):
        need += (BYTES + n * channels * planes.element_size()) * height * width
    if planes.device.type == "cpu":
        pixels = size[0] * size[1] + resized * height * width * runner.scale**2
        need += n * pixels * channels * planes.element_size()
    return need
