"""A picture too large for memory, from file to file: its result is written row by row.

The network computes the tiles it computes for any picture, row of tiles after row of tiles; of the
result only the row under way and the one being written are there. The pixels are the same.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from espan.errors import LimitError
from espan.execution.planes import nobody
from espan.execution.runner import Request, Runner
from espan.images import files
from espan.images.adapt import from_any
from espan.images.alpha import BYTES, bleed
from espan.images.resize import RowByRow, resize_rows
from espan.system import memory, shutdown
from espan.system.pinned import Empty

ALWAYS = nullcontext()
Progress = Callable[[int, int], None]

# Pixels of a result from which on it is written in bands.
LARGE = 64_000_000

# Bands of the result at once: computed, handed over, being written with what it takes to compress.
# A GPU has one more under way.
_BANDS = 2.5


class Enlarges(Protocol):
    """What this file asks of an `Upscaler`."""

    _runner: Runner

    def __call__(self, image: Any, scale: float, *, progress: Progress | None = None) -> Any: ...


def upscale_to(
    output: str | Path,
    upscaler: Enlarges,
    image,
    scale: float,
    progress: Progress | None = None,
    computing: AbstractContextManager = ALWAYS,
) -> Path:
    """`files.write(output, upscaler(image, scale))`; a large PNG or TIFF is never held whole.

    image: what `files.read` gives. computing: a context for the work that is not writing alone.
    Raises what both functions do.
    """
    pixels = round(image.width * scale) * round(image.height * scale)
    if pixels > LARGE and files.takes_rows(output, image.mode):
        with computing:
            return in_bands(output, upscaler, image, scale, progress)
    with computing:
        result = upscaler(image, scale, progress=progress)
    return files.write(output, result)


def in_bands(
    output: str | Path, upscaler: Enlarges, image, scale: float, progress: Progress | None = None
) -> Path:
    """`upscale_to` for any size."""
    runner = upscaler._runner
    planes = from_any(image).planes[None]
    _, channels, height, width = planes.shape
    size = round(width * scale), round(height * scale)
    has_alpha = channels in (2, 4)
    colours = channels - has_alpha
    _check_memory(runner, planes, scale, has_alpha)

    source = bleed(planes[0, :-1], planes[0, -1])[None] if has_alpha else planes
    small = RowByRow(runner.scale * height, size[::-1]) if scale != runner.scale else None
    # Bicubic, as of any picture.
    alpha = _Alpha(planes[0, -1].numpy(), size[::-1]) if has_alpha else None

    # In this order: on an error the file is closed first, and who still writes stops at once.
    with (
        ThreadPoolExecutor(1) as background,
        files.rows(output, image.mode, size, image.info) as add,
    ):
        writing: list[Future] = []

        def emit(rows: np.ndarray) -> None:
            if writing:
                writing.pop().result()
            writing.append(background.submit(finish, rows))

        def finish(rows: np.ndarray) -> None:
            if small:
                rows = small(rows)
            if alpha:
                rows = np.concatenate([rows, alpha(len(rows))], 2)
            add(rows)

        target = _Rolling(runner.scale * width, colours, planes.dtype, emit, runner.empty)

        with shutdown.under_way(progress or nobody) as step:
            runner.run(Request(source, target, step, target.filled))
        writing.pop().result()
    return Path(output)


class _Rolling:
    """Stands for a result (1, C, H, W) of which only bands of rows exist, C = 1 or 3.

    Who fills it takes slices from top to bottom, each within what one slice before it had of the
    height. What is full goes to `emit` as (h, W, C).
    """

    def __init__(self, width: int, channels: int, dtype: torch.dtype, emit: Callable, empty: Empty):
        self.shape, self.dtype, self.emit, self.empty = (width, channels), dtype, emit, empty
        # By their first row, top to bottom: the memory, and how many pixels of it are missing. Two
        # where the first tile of a row is begun before the last one above it is done.
        self.bands: dict[int, tuple[Tensor, int]] = {}
        self.bottom = 0

    def __getitem__(self, index: tuple[slice, slice, slice, slice]) -> Tensor:
        _, _, rows, columns = index
        if rows.start == self.bottom:
            band = self.empty((rows.stop - rows.start, *self.shape), self.dtype)
            self.bands[rows.start] = band, len(band) * self.shape[0]
            self.bottom = rows.stop
        top = self._top(rows)
        band = self.bands[top][0]
        return band[rows.start - top : rows.stop - top, columns].permute(2, 0, 1)[None]

    def filled(self, rows: slice, columns: slice) -> None:
        """These pixels are there."""
        top = self._top(rows)
        band, missing = self.bands[top]
        self.bands[top] = band, missing - (rows.stop - rows.start) * (columns.stop - columns.start)
        while self.bands and not next(iter(self.bands.values()))[1]:
            self.emit(self.bands.pop(next(iter(self.bands)))[0].numpy())

    def _top(self, rows: slice) -> int:
        """The first row of the band that has these."""
        return max(top for top in self.bands if top <= rows.start)


class _Alpha:
    """The enlarged alpha of a picture, so many rows at a time."""

    def __init__(self, alpha: np.ndarray, size: tuple[int, int]):
        self.alpha, self.size, self.done = alpha, size, 0

    def __call__(self, count: int) -> np.ndarray:
        """The next `count` rows, (count, W, 1)."""
        self.done += count
        wanted = (self.done - count, self.done)
        return resize_rows(self.alpha, self.size, wanted)[..., None]


def _check_memory(runner, planes: Tensor, scale: float, has_alpha: bool) -> None:
    _, channels, height, width = planes.shape
    row = runner.scale * width * channels * planes.element_size()
    need = runner.host_memory(1, height, width, planes.dtype)
    bands = _BANDS + (runner.device.type != "cpu")
    need += int(bands * runner.rows(height, width) * runner.scale * row)
    need += has_alpha * BYTES * height * width
    free = memory.missing(need)
    if free is not None:
        raise LimitError(
            f"{width} x {height} pixels x{scale:g} need {need / 2**20:,.0f} MiB of memory row by "
            f"row, {free / 2**20:,.0f} MiB are free (smaller tiles need less)"
        )
