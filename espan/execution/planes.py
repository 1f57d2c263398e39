"""Whole images as planes through a network: colours by the runner, alpha beside them."""

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


class Images(NamedTuple):
    """Images (N, C, H, W) of one size, to become `size` (height, width) in what `new(H, W)` gives.

    `new` may give a channel more, which becomes opaque. `progress` counts the pixels that enter the
    network, in all passes. copy: bytes per pixel of the result that the caller will take for one of
    his own.
    """

    planes: Tensor
    new: New
    size: tuple[int, int]
    progress: Progress | None
    copy: int = 0


def enlarge(runner: Runner, images: Iterable[Images]) -> Generator[Tensor]:
    """The results of images after images; on a GPU the next are under way while one is used.

    Those that take several passes, or none, have the network to themselves: a pass needs all of the
    one before it.
    """

    def once(each: Images) -> bool:
        return len(passes(each.planes.shape[2:], each.size, runner.scale)) == 1

    for together, some in groupby(images, once):
        if together:
            yield from _in_turn(runner, some)
        else:
            yield from (enlarge_one(runner, each) for each in some)


def _in_turn(runner: Runner, images: Iterable[Images]) -> Generator[Tensor]:
    """The results of images that take one pass, as one pipeline."""
    begun: list[_Pass] = []
    with shutdown.under_way(nobody) as alive:

        def requests() -> Iterator[Request]:
            for each in images:
                host_memory.check(runner, each.planes, each.size, each.copy)
                begun.append(_Pass(runner, each.planes, each.new, each.size))
                yield begun[-1].request(_both(alive, each.progress))

        with closing(runner.fill(requests())) as full:
            for _ in full:
                yield begun.pop(0).finished()


def enlarge_one(runner: Runner, images: Images) -> Tensor:
    """The result of images of one size, without what it takes to have others under way."""
    planes, new, size, progress, copy = images
    host_memory.check(runner, planes, size, copy)
    sizes = passes(planes.shape[2:], size, runner.scale)
    with shutdown.under_way(progress or nobody) as step:
        if not sizes:
            out = _finished(planes, _colours(planes), new(*size))
            step(planes[:, 0].numel(), planes[:, 0].numel())
            return out
        counted, out = Counted(step, planes, sizes), planes
        for each in sizes:
            # Without the channel that `new` gave beyond their own.
            out = enlarge_once(runner, out[:, : planes.size(1)], new, each, counted)
        return out


class Counted:
    """One count for several passes: called with what is done of the pass under way."""

    def __init__(self, step: Step, planes: Tensor, sizes: Sequence[tuple[int, int]]):
        n, _, height, width = planes.shape
        inputs = [(height, width), *sizes[:-1]]
        self.step, self.before = step, 0
        self.total = sum(n * each[0] * each[1] for each in inputs)

    def __call__(self, done: int, total: int) -> None:
        self.step(self.before + done, self.total)
        if done == total:
            self.before += total


def enlarge_once(
    runner: Runner, planes: Tensor, new: New, size: tuple[int, int], step: Step
) -> Tensor:
    """One pass of the network, which reaches `size`."""
    one = _Pass(runner, planes, new, size)
    runner.run(one.request(step))
    return one.finished()


class _Pass:
    """Images before and after the network; what it makes beyond `size` is filtered away."""

    def __init__(self, runner: Runner, planes: Tensor, new: New, size: tuple[int, int]):
        height, width = planes.shape[2:]
        whole = height * runner.scale, width * runner.scale
        self.planes = planes
        self.out = self.large = new(*size)
        if whole != size:
            self.large = new(*whole)

    def request(self, step: Step) -> Request:
        return Request(_colours(self.planes), self.large, step)

    def finished(self) -> Tensor:
        return _finished(self.planes, self.large, self.out)


def _colours(planes: Tensor) -> Tensor:
    """Their colours alone, everywhere such that no edge of what is transparent shows."""
    colours = planes[:, : colours_of(planes.size(1))]
    if colours.shape == planes.shape or not len(planes):
        return colours
    return torch.stack([bleed(each[:-1], each[-1]) for each in planes])


def _finished(planes: Tensor, large: Tensor, out: Tensor) -> Tensor:
    """`out`, with the colours of `large` and the alpha of `planes`."""
    colours = colours_of(planes.size(1))
    if large is not out:
        for each, resized in zip(large, out, strict=True):
            resize_into(each[:colours], resized[:colours])
        out[:, colours:].fill_(WHITE[out.dtype])
    if colours < planes.size(1):
        for image, each in zip(planes, out, strict=True):
            enlarge_alpha(image[-1:], each[-1:])
    return out


def _both(alive: Step, progress: Progress | None) -> Step:
    if progress is None:
        return alive

    def step(done: int, total: int) -> None:
        alive(done, total)
        progress(done, total)

    return step


def nobody(_done: int, _total: int) -> None:
    """The progress nobody asked for."""
