"""Writes animations frame by frame. Pillow's GIF and APNG encoders keep all frames in memory."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from espan.errors import OutputError
from espan.images import files
from espan.images.files.writing import SAVE

# Suffixes of animations that are written, and their formats.
SUFFIXES = {".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".avif": "AVIF"}

# Maximum number of plays per format; AVIF always repeats forever.
_PLAYS = {"GIF": 65536, "PNG": 2**31 - 1, "WEBP": 65535, "AVIF": 0}

# One of 256 colours is transparent.
_COLOURS, _CLEAR = 255, 255


def format_of(path: Path) -> str:
    """The format of a path by its suffix; raises OutputError if it does not support animations."""
    name = SUFFIXES.get(path.suffix.lower())
    if name is None:
        known = ", ".join(SUFFIXES)
        kind = path.suffix or "a file without extension"
        raise OutputError(f"{path}: {kind} cannot hold an animation (known: {known})")
    return name


def write(
    file: IO[bytes],
    format: str,
    frames: Iterator[Image.Image],
    durations: Sequence[float],
    plays: int,
    icc_profile: bytes | None,
) -> None:
    """Writes frames of equal size and mode as they arrive. durations: in milliseconds."""
    plays = min(plays, _PLAYS[format])
    if format == "GIF":
        _write_gif(file, frames, durations, plays)
    elif format == "PNG":
        _write_apng(file, frames, durations, plays, icc_profile)
    else:
        milliseconds = [count for count, _ in _delays(durations, 2**24 - 1, (1000,))]
        options: dict[str, Any] = {**SAVE[format], "duration": milliseconds, "loop": plays}
        if icc_profile:
            options["icc_profile"] = icc_profile
        _Sequence(frames, len(durations)).save(file, format, save_all=True, **options)


def _delays(
    durations: Sequence[float], most: int, parts: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Converts milliseconds to (count, n), a duration of count / n seconds, count at most `most`.

    n is the first of `parts` for which count is small enough; with the last one, count is clipped.
    Carries rounding errors to the next frame.
    """
    left = 0.0
    for duration in durations:
        left = min(left + duration, 1000 * most / parts[-1])
        part = next(each for each in parts if round(left * each / 1000) <= most)
        count = max(round(left * part / 1000), 0)
        left -= 1000 * count / part
        yield count, part


class _Sequence(Image.Image):
    """A Pillow image that passes frames to Pillow's encoders one at a time."""

    def __init__(self, frames: Iterator[Image.Image], count: int):
        super().__init__()
        self.frames, self.n_frames, self.at = frames, count, -1
        self.is_animated = count > 1
        self.seek(0)

    def seek(self, frame: int) -> None:
        if frame >= self.n_frames:
            raise EOFError
        if frame == self.at + 1:  # otherwise Pillow returns to its position before saving
            shown, self.at = next(self.frames), frame
            self.im, self._mode, self._size = shown.im, shown.mode, shown.size

    def tell(self) -> int:
        return self.at


class _Change:
    """Finds the part of each frame that differs from the previous one."""

    def __init__(self) -> None:
        self.before: np.ndarray | None = None

    def __call__(self, pixels: np.ndarray) -> tuple[slice, slice]:
        rows, columns = slice(0, pixels.shape[0]), slice(0, pixels.shape[1])
        if self.before is not None:
            differs = (pixels != self.before).any(2)
            down, across = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
            # Write one pixel for an equal frame, to keep its duration.
            rows = slice(down[0], down[-1] + 1) if len(down) else slice(0, 1)
            columns = slice(across[0], across[-1] + 1) if len(across) else slice(0, 1)
        self.before = pixels
        return rows, columns


def _write_gif(
    file: IO[bytes], frames: Iterator[Image.Image], durations: Sequence[float], plays: int
) -> None:
    """Writes each frame with its own palette; rounds times to 1/100 s and keeps their sum."""
    change, delays = _Change(), _delays(durations, 65535, (100,))
    for number, (frame, (delay, _)) in enumerate(zip(frames, delays, strict=True)):
        if number == 0:
            file.write(b"GIF89a" + struct.pack("<HHBBB", *frame.size, 0x70, 0, 0))
            if plays != 1:
                repeats = plays and plays - 1
                file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", repeats) + b"\0")
        pixels = np.asarray(frame)
        clear = pixels.shape[2] == 4
        # Earlier frames would show through transparency: clear each frame, write the next in full.
        rows, columns = (slice(0, frame.height), slice(0, frame.width)) if clear else change(pixels)
        palette, bits, coded = _gif_image(pixels[rows, columns])
        flags = (2 if clear else 1) << 2 | clear
        file.write(b"\x21\xf9\x04" + struct.pack("<BHBB", flags, delay, _CLEAR, 0))
        height, width = rows.stop - rows.start, columns.stop - columns.start
        place = struct.pack("<HHHH", columns.start, rows.start, width, height)
        file.write(b"," + place + bytes([0x80 | bits - 1]) + palette + coded)
    file.write(b";")


def _gif_image(pixels: np.ndarray) -> tuple[bytes, int, bytes]:
    """Returns (palette, bits of its size, coded pixels) of a frame; alpha < 128 is transparent."""
    colours = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    frame = colours.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    if pixels.shape[2] == 4:
        palette = (frame.getpalette() or [])[: 3 * _COLOURS]
        indices = np.where(pixels[..., 3] < 128, np.uint8(_CLEAR), np.asarray(frame))
        frame = Image.fromarray(indices, "P")
        frame.putpalette(palette + [0] * (768 - len(palette)))
    encoded = BytesIO()
    frame.save(encoded, "GIF", optimize=False, interlace=0)
    data = encoded.getvalue()
    bits = (data[10] & 7) + 1
    at = 13 + 3 * 2**bits
    palette_bytes = data[13:at]
    while data[at] == 0x21:  # extensions: sub-blocks with length prefixes
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    return palette_bytes, bits, data[at + 10 : -1]


def _write_apng(
    file: IO[bytes],
    frames: Iterator[Image.Image],
    durations: Sequence[float],
    plays: int,
    icc_profile: bytes | None,
) -> None:
    """Writes the changed part of each frame, encoded as a PNG."""
    change, delays, number = _Change(), _delays(durations, 65535, (1000, 100, 1)), 0

    def chunk(kind: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + kind + data)
        file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))

    for frame, time in zip(frames, delays, strict=True):
        pixels = np.asarray(frame)
        rows, columns = change(pixels)
        part = Image.fromarray(np.ascontiguousarray(pixels[rows, columns]))
        if number == 0 and icc_profile:
            part.info["icc_profile"] = icc_profile
        coded = BytesIO()
        files.write(files.Stream(coded, ".png"), part)
        place = part.width, part.height, columns.start, rows.start
        # The frame stays; the next one overwrites its own area, including alpha.
        control = struct.pack(">IIIIIHHBB", number, *place, *time, 0, 0)
        first = number == 0
        if first:
            file.write(b"\x89PNG\r\n\x1a\n")
        else:
            chunk(b"fcTL", control)
            number += 1
        for kind, data in _chunks(coded.getvalue()):
            if kind == b"IDAT" and not first:
                chunk(b"fdAT", struct.pack(">I", number) + data)
                number += 1
            elif kind == b"IDAT" and number == 0:
                chunk(b"acTL", struct.pack(">II", len(durations), plays))
                chunk(b"fcTL", control)
                number += 1
                chunk(kind, data)
            elif first and kind != b"IEND":
                chunk(kind, data)
    chunk(b"IEND", b"")


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length
