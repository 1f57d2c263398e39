"""Writes animated WebP frame by frame. Pillow codes the frames, but would keep the coded ones."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BytesIO
from typing import IO

from PIL import Image

from espan.animation.parts import coded_parts
from espan.errors import OutputError
from espan.images.files.writing import SAVE

_PROFILE, _ALPHA, _ANIMATION = 0x20, 0x10, 0x02
# Bytes of a file.
MOST = 2**32
# A frame replaces its area and stays.
_REPLACE = 0x02


def write(
    file: IO[bytes],
    frames: Iterator[Image.Image],
    delays: Sequence[int],
    plays: int,
    icc_profile: bytes | None,
) -> None:
    """Writes frames of equal size and mode. delays: in milliseconds."""
    start = file.tell()

    def chunk(kind: bytes, data: bytes) -> None:
        file.write(_chunk(kind, data))

    with closing(coded_parts(frames, _coded, even=True)) as parts:
        for number, ((part, coded), delay) in enumerate(zip(parts, delays, strict=True)):
            if number == 0:
                file.write(b"RIFF\0\0\0\0WEBP")
                flags = _ANIMATION | (part.image.mode == "RGBA" and _ALPHA)
                flags |= bool(icc_profile) and _PROFILE
                chunk(b"VP8X", _three_bytes(flags) + b"\0" + _size(part.image))
                if icc_profile:
                    chunk(b"ICCP", icc_profile)
                chunk(b"ANIM", struct.pack("<IH", 0, plays))
            place = _three_bytes(part.left // 2) + _three_bytes(part.top // 2) + _size(part.image)
            chunk(b"ANMF", place + _three_bytes(delay) + bytes([_REPLACE]) + coded)
    length = file.tell() - start - 8
    if length >= MOST:
        raise OutputError("a WebP holds at most 4 GB; choose png")
    file.seek(start + 4)
    file.write(struct.pack("<I", length))
    file.seek(0, 2)


def _coded(image: Image.Image) -> bytes:
    """The chunks of the pixels of an image: alpha, if it is transparent, and colours."""
    encoded = BytesIO()
    # The least effort takes a third of the time of a still image's (docs/decisions.md).
    image.save(encoded, "WEBP", **SAVE["WEBP"], method=0)
    data, at, pixels = encoded.getvalue(), 12, b""
    while at < len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        after = at + 8 + length + length % 2
        if kind != b"VP8X":
            pixels += data[at:after]
        at = after
    return pixels


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(data)) + data + bytes(len(data) % 2)


def _size(image: Image.Image) -> bytes:
    return _three_bytes(image.width - 1) + _three_bytes(image.height - 1)


def _three_bytes(number: int) -> bytes:
    return number.to_bytes(3, "little")
