"""Writes TIFF in strips of rows: compresses strips as they arrive, then writes the directory."""

import struct
from contextlib import suppress
from fractions import Fraction
from os import SEEK_END
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image

from espan.errors import OutputError
from espan.images.files.deflate import STRIP, compress, map_in_threads
from espan.images.files.metadata import DECODE_ERRORS, TIFF_TAGS

# Uncompressed size below which 32-bit offsets suffice: deflate adds at most 0.1% to noise.
CLASSIC = int(4e9)

_SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8, _ASCII, _BYTE = 3, 4, 5, 7, 16, 2, 1
_CODES = {_SHORT: "H", _LONG: "I", _RATIONAL: "II", _LONG8: "Q"}


class TiffRows:
    """Writes an image of `size` (width, height), with `channels` values of `dtype` per pixel.

    metadata: icc_profile, exif and dpi as PIL has them. BigTIFF where it could pass 4 GB. after:
    the page before, in the same file.
    """

    def __init__(
        self,
        file: IO[bytes],
        size,
        channels: int,
        dtype: np.dtype,
        metadata: dict,
        after: "TiffRows | None" = None,
        big: bool = False,
    ):
        self.file, self.size, self.channels, self.dtype = file, size, channels, dtype
        self.metadata = metadata
        row = size[0] * channels * dtype.itemsize
        self.big: bool = after.big if after else big or row * size[1] > CLASSIC
        self.rows = max(1, STRIP // row)
        self.rest = np.empty((0, size[0], channels), dtype)
        self.offsets: list[int] = []
        self.lengths: list[int] = []
        # The place of the directory is filled in at the end: where the one before has room for it,
        # or the header.
        self.link: int = after.next if after else 8 if self.big else 4
        self.next: int = 0
        if not after:
            file.write(b"II+\0\x08\0\0\0" + bytes(8) if self.big else b"II*\0" + bytes(4))

    def add(self, pixels: np.ndarray) -> None:
        """Adds the next rows, (h, W, C)."""
        pixels = np.concatenate([self.rest, pixels])
        whole = len(pixels) - len(pixels) % self.rows
        self._strips([pixels[top : top + self.rows] for top in range(0, whole, self.rows)])
        self.rest = pixels[whole:].copy()

    def finish(self) -> None:
        if len(self.rest):
            self._strips([self.rest])
        if len(self.offsets) != -(-self.size[1] // self.rows):
            raise OutputError("rows are missing")
        if self.file.tell() % 2:
            self.file.write(b"\0")  # directories are word-aligned
        place = self.file.tell()
        self.file.write(self._directory(place))
        self.file.seek(self.link)
        self.file.write(struct.pack("<Q" if self.big else "<I", place))
        self.file.seek(0, SEEK_END)

    def _strips(self, strips: list[np.ndarray]) -> None:
        for data in map_in_threads(self._strip, strips):
            self.offsets.append(self.file.tell())
            self.lengths.append(len(data))
            self.file.write(data)

    def _strip(self, pixels: np.ndarray) -> bytes:
        """Compresses a strip with predictor 2: horizontal differences."""
        rest = pixels.astype(self.dtype.newbyteorder("<"))
        rest[:, 1:] -= pixels[:, :-1]
        return compress(rest)

    def _directory(self, place: int) -> bytes:
        width, height = self.size
        offset = _LONG8 if self.big else _LONG
        tags: dict[int, tuple[int, Any]] = {
            256: (_LONG, [width]),
            257: (_LONG, [height]),
            258: (_SHORT, [8 * self.dtype.itemsize] * self.channels),
            259: (_SHORT, [8]),  # deflate
            262: (_SHORT, [2 if self.channels > 2 else 1]),  # RGB, or 0 is black
            273: (offset, self.offsets),
            277: (_SHORT, [self.channels]),
            278: (_LONG, [self.rows]),
            279: (offset, self.lengths),
            317: (_SHORT, [2]),  # predictor
        }
        if self.channels in (2, 4):
            tags[338] = (_SHORT, [2])  # straight alpha
        if dpi := self.metadata.get("dpi"):
            for tag, each in zip((282, 283), dpi, strict=True):
                ratio = Fraction(float(each)).limit_denominator(1000)
                tags[tag] = (_RATIONAL, [ratio.numerator, ratio.denominator])
            tags[296] = (_SHORT, [2])  # per inch
        if profile := self.metadata.get("icc_profile"):
            tags[34675] = (_UNDEFINED, profile)
        for tag, name in ((700, "xmp"), (33723, "iptc")):
            if data := self.metadata.get(name):
                tags[tag] = (_UNDEFINED if name == "iptc" else _BYTE, data)
        groups = {}
        if data := self.metadata.get("exif"):
            exif = Image.Exif()
            exif.load(data)
            for tag in TIFF_TAGS:
                if isinstance(value := exif.get(tag), str):
                    tags[int(tag)] = (_ASCII, value.encode("utf-8", "replace") + b"\0")
            for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                # Skip damaged groups.
                with suppress(*DECODE_ERRORS):
                    if (details := exif.get_ifd(group)) and self._group(group, details, 0):
                        groups[int(group)] = details
        return self._packed(place, tags, groups)

    def _packed(self, place: int, tags: dict, groups: dict) -> bytes:
        """Packs the directory at offset `place`: entries, then values that do not fit into them."""
        word, entry = ("Q", 20) if self.big else ("I", 12)
        count = len(tags) + len(groups)
        head = struct.pack("<Q" if self.big else "<H", count)
        behind = bytearray()
        self.next = place + len(head) + entry * count
        start = self.next + struct.calcsize(word)
        entries = b""
        for tag in sorted({**tags, **groups}):
            at = start + len(behind)
            if tag in groups:
                kind, number, data = _LONG8 if self.big else _LONG, 1, struct.pack("<" + word, at)
                behind += self._group(tag, groups[tag], at)
            else:
                kind, values = tags[tag]
                if isinstance(values, bytes):
                    number, data = len(values), values
                else:
                    number = 1 if kind == _RATIONAL else len(values)
                    code = "II" if kind == _RATIONAL else f"{number}{_CODES[kind]}"
                    data = struct.pack("<" + code, *values)
                if len(data) > struct.calcsize(word):
                    behind += data
                    data = struct.pack("<" + word, at)
            behind += bytes(len(behind) % 2)
            entries += struct.pack("<HH" + word, tag, kind, number)
            entries += data.ljust(struct.calcsize(word), b"\0")
        return head + entries + bytes(struct.calcsize(word)) + behind

    def _group(self, tag: int, details: dict, at: int) -> bytes:
        from PIL.TiffImagePlugin import ImageFileDirectory_v2  # lazy, to start faster

        header = b"II+\0\x08\0\0\0" + bytes(8) if self.big else b"II*\0" + bytes(4)
        directory = ImageFileDirectory_v2(header, group=tag)
        for key, value in details.items():
            directory[key] = value
        return directory.tobytes(at)
