"""What of a batch of pictures is computed together, and how that shrinks when memory runs out."""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from espan.execution.tiling import Part, Tile, cut

SMALLEST_TILE = 16


class Target(Protocol):
    """What results (N, C, H, W) are written to: a tensor, or what gives its parts."""

    def __getitem__(self, index: tuple[slice, slice, slice, slice], /) -> Tensor: ...


class TileBatch(NamedTuple):
    """A part of some of the pictures of a batch."""

    first: int
    last: int
    part: Part

    @property
    def pictures(self) -> int:
        return self.last - self.first

    @property
    def pixels(self) -> int:
        """Of the input, the halo not counted."""
        return self.pictures * self.part.tile.pixels

    def source(self, batch: Tensor) -> Tensor:
        """The pixels (n, C, h, w) to compute it from."""
        rows, columns = self.part.window.area
        return batch[self.first : self.last, :, rows, columns]

    def target(self, results: Target, scale: int) -> Tensor:
        """The pixels of the result that it fills."""
        rows, columns = self.part.tile.enlarged(scale)
        return results[self.first : self.last, slice(None), rows, columns]

    def area(self, scale: int) -> tuple[slice, slice]:
        """Those pixels as rows and columns of what comes of `source`."""
        return self.part.tile.within(self.part.window).enlarged(scale)


class TileSchedule:
    """The jobs left of `n` pictures of a size, first to last.

    tile: the most rows and columns of one, its halo not counted. A job has several pictures as
    long as their windows hold no more than `pixels` in all.
    """

    def __init__(self, n: int, size: Sequence[int], tile: Sequence[int], halo: int, pixels: int):
        self.size, self.halo, self.pixels = (size[0], size[1]), halo, pixels
        self.pictures, self.tile = n, (tile[0], tile[1])
        # The next one last.
        self._left = [*_all(n, self.size, self.tile, halo, pixels)]

    def __bool__(self) -> bool:
        return bool(self._left)

    def next(self) -> TileBatch:
        """The next job; it stays the next one until `pop`."""
        return self._left[-1]

    def pop(self) -> TileBatch:
        return self._left.pop()

    def halve(self, failed: TileBatch) -> bool:
        """Fewer pictures in every job, or smaller tiles: `failed`, which is none of those left, ran
        out of memory and is to be done again. False if it cannot be smaller.
        """
        if failed.pictures > 1:
            self.pictures = failed.pictures // 2
        elif max(self.tile) > SMALLEST_TILE:
            sides = zip(self.tile, failed.part.tile.size, strict=True)
            height, width = (max(-(-min(side) // 2), SMALLEST_TILE) for side in sides)
            self.tile = height, width
        else:
            return False
        self._left = self._split([failed, *self._left[::-1]])
        return True

    def _split(self, jobs: Iterable[TileBatch]) -> list[TileBatch]:
        return _split(jobs, self.size, self.tile, self.halo, self.pictures, self.pixels)


@functools.lru_cache(maxsize=16)
def _all(n: int, size: tuple, tile: tuple, halo: int, pixels: int) -> tuple[TileBatch, ...]:
    """The jobs of whole pictures: those of a folder or a video often have one size."""
    whole = Tile(0, size[0], 0, size[1])
    return tuple(
        _split([TileBatch(0, n, Part(whole, whole))] if n else [], size, tile, halo, n, pixels)
    )


def _split(
    jobs: Iterable[TileBatch], size: tuple, tile: tuple, halo: int, pictures: int, pixels: int
) -> list[TileBatch]:
    """The jobs in smaller ones, the first of them last."""
    parts = []
    for job in jobs:
        for part in cut(job.part.tile, size, tile, halo):
            at_once = min(pictures, max(1, pixels // part.window.pixels))
            for first in range(job.first, job.last, at_once):
                parts.append(TileBatch(first, min(first + at_once, job.last), part))
    return parts[::-1]
