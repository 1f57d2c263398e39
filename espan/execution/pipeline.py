"""Takes images through the network, in as many passes as needed; alpha is resized by bicubic."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from espan.execution import host_memory
from espan.execution.runner import Request, Runner, Step
from espan.images.alpha import bleed, enlarge_alpha, resize_into
from espan.images.pixels import WHITE, colours_of
from espan.options import Progress
from espan.sizes import passes
from espan.system import shutdown

New = Callable[[int, int], Tensor]


class ImageBatch(NamedTuple):
    """Channels-first images (N, C, H, W) of one size, to upscale to `size` (height, width).

    `new(H, W)` allocates the result, optionally with one channel more, which becomes opaque.
    `progress` counts the input pixels of all passes. copy: bytes per pixel of the result for a copy
    that the caller will make.
    """

    pixels: Tensor
    new: New
    size: tuple[int, int]
    progress: Progress | None
    copy: int = 0


def enlarge(runner: Runner, batches: Iterable[ImageBatch]) -> Generator[Tensor]:
    """Yields the result of each batch; on a GPU the next ones run while the caller uses one.

    Batches that need several passes or none run alone, since a pass needs the full result of the
    previous one.
    """

    def in_one_pass(batch: ImageBatch) -> bool:
        return len(passes(batch.pixels.shape[2:], batch.size, runner.scale)) == 1

    for pipelined, group in groupby(batches, in_one_pass):
        if pipelined:
            yield from _pipelined(runner, group)
        else:
            yield from (enlarge_one(runner, batch) for batch in group)


def _pipelined(runner: Runner, batches: Iterable[ImageBatch]) -> Generator[Tensor]:
    begun: list[_Pass] = []
    with shutdown.under_way(no_progress) as alive:

        def requests() -> Iterator[Request]:
            for batch in batches:
                host_memory.check(runner, batch.pixels, batch.size, batch.copy)
                begun.append(_Pass(runner, batch.pixels, batch.new, batch.size))
                yield begun[-1].request(_both(alive, batch.progress))

        with closing(runner.fill(requests())) as full:
            for _ in full:
                yield begun.pop(0).finished()


def enlarge_one(runner: Runner, batch: ImageBatch) -> Tensor:
    """The result of one batch, without the overhead of a pipeline."""
    pixels, new, size, progress, copy = batch
    host_memory.check(runner, pixels, size, copy)
    sizes = passes(pixels.shape[2:], size, runner.scale)
    with shutdown.under_way(progress or no_progress) as step:
        if not sizes:
            out = _finished(pixels, _colours(pixels), new(*size))
            step(pixels[:, 0].numel(), pixels[:, 0].numel())
            return out
        counted, out = Counted(step, pixels, sizes), pixels
        for each in sizes:
            # Drops the opaque channel that `new` may add.
            out = enlarge_once(runner, out[:, : pixels.size(1)], new, each, counted)
        return out


class Counted:
    """Sums the progress of several passes: called with the progress of the current one."""

    def __init__(self, step: Step, pixels: Tensor, sizes: Sequence[tuple[int, int]]):
        n, _, height, width = pixels.shape
        inputs = [(height, width), *sizes[:-1]]
        self.step, self.before = step, 0
        self.total = sum(n * each[0] * each[1] for each in inputs)

    def __call__(self, done: int, total: int) -> None:
        self.step(self.before + done, self.total)
        if done == total:
            self.before += total


def enlarge_once(
    runner: Runner, pixels: Tensor, new: New, size: tuple[int, int], step: Step
) -> Tensor:
    """One pass through the network, resized to `size` if that is smaller."""
    one = _Pass(runner, pixels, new, size)
    runner.run(one.request(step))
    return one.finished()


class _Pass:
    """Images before and after one pass, whose result is resized down to `size`."""

    def __init__(self, runner: Runner, pixels: Tensor, new: New, size: tuple[int, int]):
        height, width = pixels.shape[2:]
        whole = height * runner.scale, width * runner.scale
        self.pixels = pixels
        self.out = self.large = new(*size)
        if whole != size:
            self.large = new(*whole)

    def request(self, step: Step) -> Request:
        return Request(_colours(self.pixels), self.large, step)

    def finished(self) -> Tensor:
        return _finished(self.pixels, self.large, self.out)


def _colours(pixels: Tensor) -> Tensor:
    """The colour channels, extended into transparent areas so that their edges do not show."""
    colours = pixels[:, : colours_of(pixels.size(1))]
    if colours.shape == pixels.shape or not len(pixels):
        return colours
    return torch.stack([bleed(each[:-1], each[-1]) for each in pixels])


def _finished(pixels: Tensor, large: Tensor, out: Tensor) -> Tensor:
    """Fills `out` with the colours of `large` and the alpha of `pixels`, both resized."""
    colours = colours_of(pixels.size(1))
    if large is not out:
        for each, resized in zip(large, out, strict=True):
            resize_into(each[:colours], resized[:colours])
        out[:, colours:].fill_(WHITE[out.dtype])
    if colours < pixels.size(1):
        for image, each in zip(pixels, out, strict=True):
            enlarge_alpha(image[-1:], each[-1:])
    return out


def _both(alive: Step, progress: Progress | None) -> Step:
    if progress is None:
        return alive

    def step(done: int, total: int) -> None:
        alive(done, total)
        progress(done, total)

    return step


def no_progress(_done: int, _total: int) -> None:
    """The progress callback if the caller passes none."""
