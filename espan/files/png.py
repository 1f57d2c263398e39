"""A PNG row by row: Pillow wants the whole picture at once, and writes no colour of 16 bits."""

import struct
import zlib
from typing import IO

import numpy as np

from espan.errors import OutputError

# The fastest: to compress a PNG takes longer than the network otherwise (docs/decisions.md).
LEVEL = 1
_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}
_SUB, _UP, _PAETH = 1, 2, 4


class PngRows:
    """Writes a picture of `size` (width, height), `channels` values of `dtype` a pixel.

    metadata: icc_profile, exif and dpi as PIL has them.
    """

    def __init__(self, file: IO[bytes], size, channels: int, dtype: np.dtype, metadata: dict):
        self.file, self.left = file, size[1]
        self.bytes = channels * dtype.itemsize  # of a pixel
        self.above = np.zeros((1, size[0] * self.bytes), np.uint8)
        self.deflate = zlib.compressobj(LEVEL)
        file.write(b"\x89PNG\r\n\x1a\n")
        head = struct.pack(">IIBBBBB", *size, 8 * dtype.itemsize, _COLOUR[channels], 0, 0, 0)
        self._chunk(b"IHDR", head)
        if profile := metadata.get("icc_profile"):
            self._chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
        if dpi := metadata.get("dpi"):
            self._chunk(b"pHYs", struct.pack(">IIB", *(round(each / 0.0254) for each in dpi), 1))
        if exif := metadata.get("exif"):
            self._chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))

    def add(self, pixels: np.ndarray) -> None:
        """The next rows, (h, W, C)."""
        rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">"))
        rows = rows.view(np.uint8).reshape(len(pixels), -1)
        self.left -= len(rows)
        self._data(self.deflate.compress(self._filtered(rows).data))
        self.above = rows[-1:].copy()

    def finish(self) -> None:
        if self.left:
            raise OutputError(f"{self.left} rows are missing")
        self._data(self.deflate.flush())
        self._chunk(b"IEND", b"")

    def _filtered(self, rows: np.ndarray) -> np.ndarray:
        """Each row less what its neighbours let expect, by the filter that leaves the least."""
        above = np.concatenate([self.above, rows[:-1]])
        left, corner = np.zeros_like(rows), np.zeros_like(rows)
        left[:, self.bytes :] = rows[:, : -self.bytes]
        corner[:, self.bytes :] = above[:, : -self.bytes]
        best = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        least = np.full(len(rows), np.iinfo(np.int64).max)
        for number, expected in (
            (_SUB, left),
            (_UP, above),
            (_PAETH, _paeth(left, above, corner)),
        ):
            rest = rows - expected
            cost = np.minimum(rest, -rest).sum(1, dtype=np.int64)
            better = cost < least
            best[better, 0] = number
            best[better, 1:] = rest[better]
            least = np.minimum(cost, least)
        return best

    def _data(self, data: bytes) -> None:
        if data:
            self._chunk(b"IDAT", data)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + kind)
        self.file.write(data)
        self.file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Of the three neighbours, the one nearest to left + above - corner; the first of equals."""
    a, b, c = (each.astype(np.int16) for each in (left, above, corner))
    to_left, to_above = np.abs(b - c), np.abs(a - c)
    to_corner = np.abs(a + b - 2 * c)
    near = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, near)
