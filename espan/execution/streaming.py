"""Row streaming: upscales an image whose result is too large for memory, writing it row by row.

The network computes the same tiles as for any image, one row of tiles after another. Only the
strips of the result that are being computed or written are in memory. The pixels are the same.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from espan.execution import host_memory
from espan.execution.pipeline import Counted, enlarge_once, no_progress
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

# Larger results are streamed. In pixels.
LARGE = 64_000_000

# Strips in memory: one being computed, one handed over, half a strip for compression. One more on
# a GPU.
_STRIPS = 2.5


class Enlarges(Protocol):
    """The parts of `Upscaler` that this module uses."""

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
    """`files.write(output, upscaler(image, scale))`, but streams large PNG and TIFF results.

    image: from `files.read`. computing: a context entered for all work except writing alone.
    Raises the errors of both functions.
    """
    width, height = result_size(scale, image.size)
    # Downscaling skips the network, and its result is smaller than the image in memory.
    larger = width > image.width or height > image.height
    if width * height > LARGE and larger and files.takes_rows(output, image.mode):
        with computing:
            stream_upscaled(output, upscaler, image, scale, progress)
        return
    with computing:
        result = upscaler(image, scale, progress=progress)
    files.write(output, result)


def stream_upscaled(
    output: Target,
    upscaler: Enlarges,
    image,
    scale: float | Size,
    progress: Progress | None = None,
) -> None:
    """Streams the result of any size; otherwise same as `upscale_to`."""
    runner, adapted = upscaler._runner, from_any(image)
    pixels = adapted.pixels[None]
    size = result_size(scale, image.size)
    sizes = passes(pixels.shape[2:], size[::-1], runner.scale)
    _check_memory(runner, pixels, sizes)

    def new(height: int, width: int) -> Tensor:
        return adapted.new(height, width)[None]

    with shutdown.under_way(progress or no_progress) as step:
        counted = Counted(step, pixels, sizes)
        for each in sizes[:-1]:  # small enough for memory
            pixels = enlarge_once(runner, pixels, new, each, counted)
        _stream_last_pass(output, runner, pixels, image, size, counted)


def _stream_last_pass(
    output: Target,
    runner: Runner,
    pixels: Tensor,
    image,
    size: tuple[int, int],
    progress: Progress,
) -> None:
    """Streams the last pass, from `pixels` to `size` (width, height), with the image's metadata."""
    _, channels, height, width = pixels.shape
    has_alpha = channels in (2, 4)
    colours = channels - has_alpha
    whole = runner.scale * height, runner.scale * width
    source = bleed(pixels[0, :-1], pixels[0, -1])[None] if has_alpha else pixels
    small = RowByRow(whole[0], size[::-1]) if whole != size[::-1] else None
    alpha = _Alpha(pixels[0, -1].numpy(), size[::-1]) if has_alpha else None

    # Order matters: on an error the file is closed first, which stops the writer thread.
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

        target = _Rolling(runner.scale * width, colours, pixels.dtype, emit, runner.empty)

        runner.run(Request(source, target, progress, target.filled))
        writing.pop().result()


class _Rolling:
    """Acts as a result (1, C, H, W), C = 1 or 3, of which only some strips of rows exist.

    The runner takes slices from top to bottom; the first slice of a row of tiles sets the height of
    its strip. Full strips go to `emit` as (h, W, C).
    """

    def __init__(self, width: int, channels: int, dtype: torch.dtype, emit: Callable, empty: Empty):
        self.shape, self.dtype, self.emit, self.empty = (width, channels), dtype, emit, empty
        # First row -> (memory, number of missing pixels), top to bottom. Two strips overlap in time
        # if a row of tiles starts before the row above is done.
        self.strips: dict[int, tuple[Tensor, int]] = {}
        self.bottom = 0

    def __getitem__(self, index: tuple[slice, slice, slice, slice]) -> Tensor:
        _, _, rows, columns = index
        if rows.start == self.bottom:
            strip = self.empty((rows.stop - rows.start, *self.shape), self.dtype)
            self.strips[rows.start] = strip, len(strip) * self.shape[0]
            self.bottom = rows.stop
        top = self._top(rows)
        strip = self.strips[top][0]
        return strip[rows.start - top : rows.stop - top, columns].permute(2, 0, 1)[None]

    def filled(self, rows: slice, columns: slice) -> None:
        """Marks pixels as written, and emits the strips that are full."""
        top = self._top(rows)
        strip, missing = self.strips[top]
        missing -= (rows.stop - rows.start) * (columns.stop - columns.start)
        self.strips[top] = strip, missing
        while self.strips and not next(iter(self.strips.values()))[1]:
            self.emit(self.strips.pop(next(iter(self.strips)))[0].numpy())

    def _top(self, rows: slice) -> int:
        """The first row of the strip that contains `rows`."""
        return max(top for top in self.strips if top <= rows.start)


class _Alpha:
    """The alpha channel enlarged by bicubic, some rows at a time."""

    def __init__(self, alpha: np.ndarray, size: tuple[int, int]):
        self.alpha, self.size, self.done = alpha, size, 0

    def __call__(self, count: int) -> np.ndarray:
        """The next `count` rows, (count, W, 1)."""
        self.done += count
        wanted = (self.done - count, self.done)
        return resize_rows(self.alpha, self.size, wanted)[..., None]


def _check_memory(runner: Runner, pixels: Tensor, sizes: list[tuple[int, int]]) -> None:
    channels, small = pixels.shape[1], sizes[-2] if len(sizes) > 1 else None
    height, width = small or pixels.shape[2:]
    pixel = channels * pixels.element_size()
    need = runner.host_memory(1, height, width, pixels.dtype)
    strips = _STRIPS + (runner.device.type != "cpu")
    need += int(strips * runner.rows(height, width) * runner.scale**2 * width * pixel)
    if channels in (2, 4):
        need += BYTES * height * width
    if small:
        need = max(need + height * width * pixel, host_memory.needed(runner, pixels, small, 0))
    host_memory.refuse_beyond(need, pixels, sizes[-1], " row by row")
