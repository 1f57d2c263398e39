"""Whole images as planes through a network: colours by the runner, alpha beside them."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from espan.execution import host_memory
from espan.execution.runner import Request, Runner, Step
from espan.images.alpha import bleed, enlarge_alpha, resize_into
from espan.images.pixels import WHITE, colours_of
from espan.options import Progress
from espan.system import shutdown


class Images(NamedTuple):
    """Images (N, C, H, W) of one size, to be enlarged into what `new(H, W)` gives.

    `new` may give a channel more, which becomes opaque. copy: bytes per pixel of the result that
    the caller will take for one of his own.
    """

    planes: Tensor
    new: Callable[[int, int], Tensor]
    scale: float
    progress: Progress | None
    copy: int = 0


def enlarge(runner: Runner, images: Iterable[Images]) -> Generator[Tensor]:
    """The results of images after images; on a GPU the next are under way while one is used."""
    begun: list[_Enlarged] = []
    with shutdown.under_way(nobody) as alive:

        def requests() -> Iterator[Request]:
            for each in images:
                begun.append(_Enlarged(runner, each))
                yield begun[-1].request(alive)

        with closing(runner.fill(requests())) as full:
            for _ in full:
                yield begun.pop(0).finished()


def enlarge_one(runner: Runner, images: Images) -> Tensor:
    """The result of images of one size, without what it takes to have others under way."""
    one = _Enlarged(runner, images)
    with shutdown.under_way(nobody) as alive:
        runner.run(one.request(alive))
    return one.finished()


class _Enlarged:
    """Images before and after the network."""

    def __init__(self, runner: Runner, images: Images):
        planes, new, scale, self.progress, copy = images
        _, channels, height, width = planes.shape
        size = round(height * scale), round(width * scale)
        host_memory.check(runner, planes, size, scale, copy)
        self.planes, self.colours = planes, colours_of(channels)
        self.out = self.large = new(*size)
        if scale != runner.scale:
            self.large = new(height * runner.scale, width * runner.scale)

    def request(self, alive: Step) -> Request:
        source, progress = self.planes, self.progress
        if self.colours < source.size(1):
            source = torch.stack([bleed(each[:-1], each[-1]) for each in source])
        if progress is None:
            return Request(source, self.large, alive)

        def step(done: int, total: int) -> None:
            alive(done, total)
            progress(done, total)

        return Request(source, self.large, step)

    def finished(self) -> Tensor:
        out, colours = self.out, self.colours
        if self.large is not out:
            for each, resized in zip(self.large, out, strict=True):
                resize_into(each[:colours], resized[:colours])
            out[:, colours:].fill_(WHITE[out.dtype])
        if colours < self.planes.size(1):
            for image, each in zip(self.planes, out, strict=True):
                enlarge_alpha(image[-1:], each[-1:])
        return out


def nobody(_done: int, _total: int) -> None:
    """The progress nobody asked for."""
