"""Cuts an image into tiles whose results equal the results of the whole image exactly.

A pixel of the result depends on `radius` input pixels around it, so a tile is read with a halo of
that width. At the image's border the halo is cut off: there the network pads with zeros, as it
does for the whole image.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple


class Tile(NamedTuple):
    """Rows y0..y1 and columns x0..x1 of the input."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def area(self) -> tuple[slice, slice]:
        """Its rows and columns in the input."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def enlarged(self, scale: int) -> tuple[slice, slice]:
        """Its rows and columns in the result."""
        y0, y1, x0, x1 = self
        return slice(scale * y0, scale * y1), slice(scale * x0, scale * x1)

    def within(self, window: "Tile") -> "Tile":
        """The same pixels, relative to the corner of `window`."""
        top, left = window.y0, window.x0
        return Tile(self.y0 - top, self.y1 - top, self.x0 - left, self.x1 - left)


class Part(NamedTuple):
    """A tile, and the window to compute it from: the tile and its halo within the image."""

    tile: Tile
    window: Tile


def cut(whole: Tile, size: tuple[int, int], largest: tuple[int, int], halo: int) -> Iterator[Part]:
    """Cuts `whole` into parts, row by row, whose windows all have the same size.

    size: rows and columns of the image that contains `whole`. No window has more rows or columns
    than `largest` plus two halos; at the image's border, the tile takes the space of the halo.
    """
    for y0, y1, top, bottom in _cut(whole.y0, whole.y1, size[0], largest[0], halo):
        for x0, x1, left, right in _cut(whole.x0, whole.x1, size[1], largest[1], halo):
            yield Part(Tile(y0, y1, x0, x1), Tile(top, bottom, left, right))


def _cut(start: int, stop: int, side: int, largest: int, halo: int):
    """(start, stop) of each tile and of its window, along one side of the image."""
    low, high = max(start - halo, 0), min(stop + halo, side)
    # `count` windows of one length from low to high; neighbours overlap by at least two halos.
    count = max(1, -(-(high - low - 2 * halo) // largest))
    length = -(-(high - low + 2 * halo * (count - 1)) // count)
    windows = [low + (high - low - length) * i // max(count - 1, 1) for i in range(count)]
    edges = [start, *((one + length + next) // 2 for one, next in pairwise(windows)), stop]
    for edge, first in zip(pairwise(edges), windows, strict=True):
        yield *edge, first, first + length
