"""A PNG row by row, by all cores. Pillow has one core, the whole picture, and colour of 8 bits."""

import struct
import zlib
from typing import IO

import numpy as np

from espan.errors import OutputError
from espan.images.files.deflate import BAND, compress, spread

_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}
_SUB, _UP, _AVERAGE = 1, 2, 3
# Of so many rows one is looked at to choose the filter of a band. An odd number: rows of what is
# upscaled differ with their place in the pattern of the scale.
_LOOK = 3


class PngRows:
    """Writes a picture of `size` (width, height), `channels` values of `dtype` a pixel.

    metadata: icc_profile, exif and dpi as PIL has them.
    """

    def __init__(self, file: IO[bytes], size, channels: int, dtype: np.dtype, metadata: dict):
        self.file, self.left = file, size[1]
        self.bytes = channels * dtype.itemsize  # of a pixel
        self.above = np.zeros((1, size[0] * self.bytes), np.uint8)
        self.head, self.adler = b"\x78\x01", 1  # of zlib, and its sum
        file.write(b"\x89PNG\r\n\x1a\n")
        head = struct.pack(">IIBBBBB", *size, 8 * dtype.itemsize, _COLOUR[channels], 0, 0, 0)
        self._chunk(b"IHDR", head)
        if profile := metadata.get("icc_profile"):
            self._chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
        if dpi := metadata.get("dpi"):
            self._chunk(b"pHYs", struct.pack(">IIB", *(round(each / 0.0254) for each in dpi), 1))
        if xmp := metadata.get("xmp"):  # not compressed, in no language
            self._chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp)
        if exif := metadata.get("exif"):
            self._chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))

    def add(self, pixels: np.ndarray) -> None:
        """The next rows, (h, W, C)."""
        rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">"))
        rows = rows.view(np.uint8).reshape(len(pixels), -1)
        self.left -= len(rows)
        step = max(1, BAND // rows.shape[1])

        def band(top: int) -> tuple[np.ndarray, bytes]:
            part = rows[top : top + step]
            over = rows[top - 1 : top] if top else self.above
            filtered = self._filtered(part, np.concatenate([over, part[:-1]]))
            # Ends at a whole byte, and knows nothing of the band before.
            return filtered, compress(filtered, -15, zlib.Z_SYNC_FLUSH)

        for filtered, data in spread(band, range(0, len(rows), step)):
            self._chunk(b"IDAT", self.head + data)
            self.head, self.adler = b"", zlib.adler32(filtered, self.adler)
        self.above = rows[-1:].copy()

    def finish(self) -> None:
        if self.left:
            raise OutputError(f"{self.left} rows are missing")
        self._chunk(b"IDAT", b"\x03\0" + struct.pack(">I", self.adler))  # an empty last block
        self._chunk(b"IEND", b"")

    def _filtered(self, rows: np.ndarray, above: np.ndarray) -> np.ndarray:
        """Rows less what their neighbours let expect, by the filter that leaves the least."""

        def rest(number: int, some: slice) -> np.ndarray:
            here, over = rows[some], above[some]
            left = np.zeros_like(here)
            left[:, self.bytes :] = here[:, : -self.bytes]
            if number == _SUB:
                return here - left
            if number == _UP:
                return here - over
            return here - ((left & over) + ((left ^ over) >> 1))  # half their sum, in 8 bits

        def cost(number: int) -> int:
            left_over = rest(number, slice(None, None, _LOOK))
            return int(np.minimum(left_over, -left_over).sum(dtype=np.int64))

        best = min((_AVERAGE, _UP, _SUB), key=cost)
        filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        filtered[:, 0] = best
        filtered[:, 1:] = rest(best, slice(None))
        return filtered

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + kind)
        self.file.write(data)
        self.file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
