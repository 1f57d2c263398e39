"""Writes PNG by rows on all cores. Pillow needs the full image, one core and 8-bit colour."""

import struct
import zlib
from typing import IO

import numpy as np

from espan.errors import OutputError
from espan.images.files.deflate import STRIP, compress, map_in_threads

_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}
_SUB, _UP, _AVERAGE = 1, 2, 3
# One row in this many is sampled to choose a strip's filter. Odd, because rows of an upscaled image
# follow a pattern with the period of the scale.
_SAMPLE = 3


class PngRows:
    """Writes an image of `size` (width, height), with `channels` values of `dtype` per pixel.

    metadata: icc_profile, exif, dpi and xmp as in PIL.
    """

    def __init__(self, file: IO[bytes], size, channels: int, dtype: np.dtype, metadata: dict):
        self.file, self.missing = file, size[1]
        self.bytes = channels * dtype.itemsize  # per pixel
        self.above = np.zeros((1, size[0] * self.bytes), np.uint8)
        self.head, self.adler = b"\x78\x01", 1  # zlib header and checksum
        file.write(b"\x89PNG\r\n\x1a\n")
        head = struct.pack(">IIBBBBB", *size, 8 * dtype.itemsize, _COLOUR[channels], 0, 0, 0)
        self._chunk(b"IHDR", head)
        if profile := metadata.get("icc_profile"):
            self._chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
        if dpi := metadata.get("dpi"):
            self._chunk(b"pHYs", struct.pack(">IIB", *(round(each / 0.0254) for each in dpi), 1))
        if xmp := metadata.get("xmp"):  # uncompressed, no language
            self._chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp)
        if exif := metadata.get("exif"):
            self._chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))

    def add(self, pixels: np.ndarray) -> None:
        """Writes the next rows, (h, W, C)."""
        rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">"))
        rows = rows.view(np.uint8).reshape(len(pixels), -1)
        self.missing -= len(rows)
        step = max(1, STRIP // rows.shape[1])

        def encoded(top: int) -> tuple[np.ndarray, bytes]:
            strip = rows[top : top + step]
            over = rows[top - 1 : top] if top else self.above
            filtered = self._filtered(strip, np.concatenate([over, strip[:-1]]))
            # Ends on a byte boundary and is independent of other strips.
            return filtered, compress(filtered, -15, zlib.Z_SYNC_FLUSH)

        for filtered, data in map_in_threads(encoded, range(0, len(rows), step)):
            self._chunk(b"IDAT", self.head + data)
            self.head, self.adler = b"", zlib.adler32(filtered, self.adler)
        self.above = rows[-1:].copy()

    def finish(self) -> None:
        if self.missing:
            raise OutputError(f"{self.missing} rows are missing")
        self._chunk(b"IDAT", b"\x03\0" + struct.pack(">I", self.adler))  # an empty last block
        self._chunk(b"IEND", b"")

    def _filtered(self, rows: np.ndarray, above: np.ndarray) -> np.ndarray:
        """Applies the filter with the smallest residuals."""

        def residual(number: int, some: slice) -> np.ndarray:
            here, over = rows[some], above[some]
            left = np.zeros_like(here)
            left[:, self.bytes :] = here[:, : -self.bytes]
            if number == _SUB:
                return here - left
            if number == _UP:
                return here - over
            return here - ((left & over) + ((left ^ over) >> 1))  # their mean, in 8 bits

        def cost(number: int) -> int:
            sample = residual(number, slice(None, None, _SAMPLE))
            return int(np.minimum(sample, -sample).sum(dtype=np.int64))

        best = min((_AVERAGE, _UP, _SUB), key=cost)
        filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        filtered[:, 0] = best
        filtered[:, 1:] = residual(best, slice(None))
        return filtered

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + kind)
        self.file.write(data)
        self.file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
