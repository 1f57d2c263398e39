"""Writes GIF frame by frame. Pillow codes the frames, but would keep all of them in memory."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BytesIO
from typing import IO

from PIL import Image

from espan.animation.parts import coded_parts

# One of 256 colours is transparent.
_COLOURS, _CLEAR = 255, 255
# Pixels above which a palette is made from every second pixel of every second row.
_LARGE = 1 << 16


def write(
    file: IO[bytes], frames: Iterator[Image.Image], delays: Sequence[int], plays: int
) -> None:
    """Writes frames of equal size and mode, each with its own palette. delays: in 1/100 s."""
    # Earlier frames would show through transparency: clear each frame, write the next in full.
    with closing(coded_parts(frames, _coded, clearing=True)) as parts:
        for number, ((part, coded), delay) in enumerate(zip(parts, delays, strict=True)):
            if number == 0:
                file.write(b"GIF89a" + struct.pack("<HHBBB", *part.image.size, 0x70, 0, 0))
                if plays != 1:
                    repeats = struct.pack("<H", plays and plays - 1)
                    file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + repeats + b"\0")
            clear = part.image.mode == "RGBA"
            flags = (2 if clear else 1) << 2 | clear
            file.write(b"\x21\xf9\x04" + struct.pack("<BHBB", flags, delay, _CLEAR, 0))
            file.write(b"," + struct.pack("<HHHH", part.left, part.top, *part.image.size) + coded)
    file.write(b";")


def _coded(image: Image.Image) -> bytes:
    """Palette and coded pixels, as they follow size and position; alpha < 128 is transparent."""
    encoded = BytesIO()
    _with_palette(image).save(encoded, "GIF", optimize=False, interlace=0)
    data = encoded.getvalue()
    bits = data[10] & 7
    at = 13 + (6 << bits)
    palette = data[13:at]
    while data[at] == 0x21:  # extensions: sub-blocks with length prefixes
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    return bytes([0x80 | bits]) + palette + data[at + 10 : -1]


def _with_palette(image: Image.Image) -> Image.Image:
    colours = image.convert("RGB")
    sample = colours
    if image.width * image.height > _LARGE:
        half = -(-image.width // 2), -(-image.height // 2)
        sample = colours.resize(half, Image.Resampling.NEAREST)
    tree = sample.quantize(_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    # The octree assigns pixels to the colours of their cells, this to the nearest ones.
    frame = colours.quantize(palette=tree, dither=Image.Dither.NONE)
    if image.mode == "RGBA":
        palette = (tree.getpalette() or [])[: 3 * _COLOURS]
        frame.paste(_CLEAR, mask=image.getchannel("A").point([255] * 128 + [0] * 128))
        frame.putpalette(palette + [0] * (768 - len(palette)))
    return frame
