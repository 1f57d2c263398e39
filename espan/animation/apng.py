"""Writes APNG frame by frame. Pillow would keep all frames in memory."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BytesIO
from typing import IO

from PIL import Image

from espan.animation.parts import coded_parts
from espan.images import files


def write(
    file: IO[bytes],
    frames: Iterator[Image.Image],
    delays: Sequence[tuple[int, int]],
    plays: int,
    icc_profile: bytes | None,
) -> None:
    """Writes frames of equal size and mode. delays: (count, n), each count / n seconds."""
    number = 0

    def chunk(kind: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + kind + data)
        file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))

    with closing(coded_parts(frames, _coded)) as parts:
        for (part, coded), delay in zip(parts, delays, strict=True):
            place = *part.image.size, part.left, part.top
            # The frame stays; the next one overwrites its own area, including alpha.
            control = struct.pack(">IIIIIHHBB", number, *place, *delay, 0, 0)
            first = number == 0
            if first:
                file.write(b"\x89PNG\r\n\x1a\n")
            else:
                chunk(b"fcTL", control)
                number += 1
            for kind, data in _chunks(coded):
                if kind == b"IDAT" and not first:
                    chunk(b"fdAT", struct.pack(">I", number) + data)
                    number += 1
                elif kind == b"IDAT" and number == 0:
                    if icc_profile:
                        chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
                    chunk(b"acTL", struct.pack(">II", len(delays), plays))
                    chunk(b"fcTL", control)
                    number += 1
                    chunk(kind, data)
                elif first and kind != b"IEND":
                    chunk(kind, data)
    chunk(b"IEND", b"")


def _coded(image: Image.Image) -> bytes:
    coded = BytesIO()
    files.write(files.Stream(coded, ".png"), image)
    return coded.getvalue()


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length
