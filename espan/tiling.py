"""Cutting a picture into tiles whose results are exactly those of the whole picture.

A pixel of the result depends on `radius` input pixels around it, so a tile is read with a halo of
that width. At the picture's own border the halo ends with the picture: there the network pads with
zeros, as it does for the whole picture.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple


class Tile(NamedTuple):
    """Rows y0..y1 and columns x0..x1 of the input, without its halo."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def pixels(self) -> int:
        return (self.y1 - self.y0) * (self.x1 - self.x0)

    def with_halo(self, halo: int, height: int, width: int) -> "Tile":
        return Tile(
            max(self.y0 - halo, 0),
            min(self.y1 + halo, height),
            max(self.x0 - halo, 0),
            min(self.x1 + halo, width),
        )

    def split(self, tile_height: int, tile_width: int) -> Iterator["Tile"]:
        """This tile in near-equal parts no larger than given, row by row."""
        for y0, y1 in _parts(self.y0, self.y1, tile_height):
            for x0, x1 in _parts(self.x0, self.x1, tile_width):
                yield Tile(y0, y1, x0, x1)


def _parts(start: int, stop: int, largest: int) -> Iterator[tuple[int, int]]:
    count = -(-(stop - start) // largest)
    edges = [start + (stop - start) * i // count for i in range(count + 1)]
    yield from pairwise(edges)
