"""A picture too large for memory, from file to file: its result is written row by row.

The network computes the tiles it computes for any picture, row of tiles after row of tiles; of the
result only the row under way and the one being written are there. The pixels are the same.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from espan.execution import host_memory
from espan.execution.planes import Counted, enlarge_once, nobody
from espan.execution.runner import Request, Runner
from espan.images import files
from espan.images.adapt import from_any
from espan.images.alpha import BYTES, bleed
from espan.images.files import Target
from espan.images.resize import RowByRow, resize_rows
from espan.options import Limits
from espan.sizes import Size, passes, result_size
from espan.system import shutdown
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
    limits: Limits

    def __call__(
        self, image: Any, scale: float | Size, *, progress: Progress | None = None
    ) -> Any: ...


def upscale_to(
    output: Target,
    upscaler: Enlarges,
    image,
    scale: float | Size,
    progress: Progress | None = None,
    computing: AbstractContextManager = ALWAYS,
) -> None:
    """`files.write(output, upscaler(image, scale))`; a large PNG or TIFF is never held whole.

    image: what `files.read` gives. computing: a context for the work that is not writing alone.
    Raises what both functions do.
    """
    width, height = result_size(scale, image.size)
    # What is made smaller goes through no network, and is smaller than what is there already.
    larger = width > image.width or height > image.height
    if width * height > LARGE and larger and files.takes_rows(output, image.mode):
        with computing:
            in_bands(output, upscaler, image, scale, progress)
        return
    with computing:
        result = upscaler(image, scale, progress=progress)
    files.write(output, result)


def in_bands(
    output: Target,
    upscaler: Enlarges,
    image,
    scale: float | Size,
    progress: Progress | None = None,
) -> None:
    """`upscale_to` for any size."""
    runner, picture = upscaler._runner, from_any(image)
    planes = picture.planes[None]
    size = result_size(scale, image.size)
    sizes = passes(planes.shape[2:], size[::-1], runner.scale)
    _check_memory(runner, planes, sizes)

    def new(height: int, width: int) -> Tensor:
        return picture.new(height, width)[None]

    with shutdown.under_way(progress or nobody) as step:
        counted = Counted(step, planes, sizes)
        for each in sizes[:-1]:  # which are small
            planes = enlarge_once(runner, planes, new, each, counted)
        _last_in_bands(output, runner, planes, image, size, counted)


def _last_in_bands(
    output: Target,
    runner: Runner,
    planes: Tensor,
    image,
    size: tuple[int, int],
    progress: Progress,
) -> None:
    """The last pass from `planes` to `size` (width, height), with what `image` says in the file."""
    _, channels, height, width = planes.shape
    has_alpha = channels in (2, 4)
    colours = channels - has_alpha
    whole = runner.scale * height, runner.scale * width
    source = bleed(planes[0, :-1], planes[0, -1])[None] if has_alpha else planes
    small = RowByRow(whole[0], size[::-1]) if whole != size[::-1] else None
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

        runner.run(Request(source, target, progress, target.filled))
        writing.pop().result()


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


def _check_memory(runner: Runner, planes: Tensor, sizes: list[tuple[int, int]]) -> None:
    channels, small = planes.shape[1], sizes[-2] if len(sizes) > 1 else None
    height, width = small or planes.shape[2:]
    pixel = channels * planes.element_size()
    need = runner.host_memory(1, height, width, planes.dtype)
    bands = _BANDS + (runner.device.type != "cpu")
    need += int(bands * runner.rows(height, width) * runner.scale**2 * width * pixel)
    if channels in (2, 4):
        need += BYTES * height * width
    if small:
        need = max(need + height * width * pixel, host_memory.needed(runner, planes, small, 0))
    host_memory.refuse_beyond(need, planes, sizes[-1], " row by row")
