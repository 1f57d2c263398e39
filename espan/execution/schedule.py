"""Which tiles of which images run together, and how batches shrink when memory runs out."""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from espan.execution.tiling import Part, Tile, cut

SMALLEST_TILE = 16


class Target(Protocol):
    """Destination of results (N, C, H, W): a tensor, or an object whose slices are tensors."""

    def __getitem__(self, index: tuple[slice, slice, slice, slice], /) -> Tensor: ...


class TileBatch(NamedTuple):
    """The same tile of images first..last of a batch."""

    first: int
    last: int
    part: Part

    @property
    def images(self) -> int:
        return self.last - self.first

    @property
    def pixels(self) -> int:
        """Input pixels, without the halo."""
        return self.images * self.part.tile.pixels

    def source(self, batch: Tensor) -> Tensor:
        """The windows (n, C, h, w) in the input."""
        rows, columns = self.part.window.area
        return batch[self.first : self.last, :, rows, columns]

    def target(self, results: Target, scale: int) -> Tensor:
        """The tiles in the result."""
        rows, columns = self.part.tile.enlarged(scale)
        return results[self.first : self.last, slice(None), rows, columns]

    def area(self, scale: int) -> tuple[slice, slice]:
        """Rows and columns of the tile within the upscaled window."""
        return self.part.tile.within(self.part.window).enlarged(scale)


class TileSchedule:
    """The tile batches that remain of `n` images of one size, in order.

    tile: maximum rows and columns of a tile, without its halo. A batch has several images as long
    as their windows have at most `pixels` in total.
    """

    def __init__(self, n: int, size: Sequence[int], tile: Sequence[int], halo: int, pixels: int):
        self.size, self.halo, self.pixels = (size[0], size[1]), halo, pixels
        self.images, self.tile = n, (tile[0], tile[1])
        # The next one is last.
        self._left = [*_all(n, self.size, self.tile, halo, pixels)]

    def __bool__(self) -> bool:
        return bool(self._left)

    def next(self) -> TileBatch:
        """The next batch, without removing it."""
        return self._left[-1]

    def pop(self) -> TileBatch:
        return self._left.pop()

    def halve(self, failed: TileBatch) -> bool:
        """Puts `failed`, which ran out of memory, back and shrinks all batches, or else all tiles.

        Returns False if they are already as small as possible.
        """
        if failed.images > 1:
            self.images = failed.images // 2
        elif max(self.tile) > SMALLEST_TILE:
            sides = zip(self.tile, failed.part.tile.size, strict=True)
            height, width = (max(-(-min(side) // 2), SMALLEST_TILE) for side in sides)
            self.tile = height, width
        else:
            return False
        self._left = self._split([failed, *self._left[::-1]])
        return True

    def _split(self, batches: Iterable[TileBatch]) -> list[TileBatch]:
        return _split(batches, self.size, self.tile, self.halo, self.images, self.pixels)


@functools.lru_cache(maxsize=16)
def _all(n: int, size: tuple, tile: tuple, halo: int, pixels: int) -> tuple[TileBatch, ...]:
    """The batches of n images. Cached: the images of a folder or a video often have one size."""
    whole = Tile(0, size[0], 0, size[1])
    batches = [TileBatch(0, n, Part(whole, whole))] if n else []
    return tuple(_split(batches, size, tile, halo, n, pixels))


def _split(
    batches: Iterable[TileBatch], size: tuple, tile: tuple, halo: int, images: int, pixels: int
) -> list[TileBatch]:
    """Smaller batches of the same tiles, in reverse order."""
    parts = []
    for batch in batches:
        for part in cut(batch.part.tile, size, tile, halo):
            together = min(images, max(1, pixels // part.window.pixels))
            for first in range(batch.first, batch.last, together):
                parts.append(TileBatch(first, min(first + together, batch.last), part))
    return parts[::-1]
