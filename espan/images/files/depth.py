"""Colour of more than 8 bits in PNG and TIFF, which Pillow returns as 8 bits.

Pillow's decoders keep the high byte of each value, or the low byte if they are given the opposite
byte order. Two decodes give 16 bits, by the same strict decoder as for any other file.
"""

import sys

import numpy as np
from PIL import ExifTags, Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from espan.errors import InputError
from espan.images.image16 import Image16

ALPHA_ASSOCIATED = "RGBa"


def bits(image: ImageFile.ImageFile) -> int:
    """Bits per channel in the file, which may be more than Pillow returns."""
    if image.format == "PNG":
        return 16 if ";16" in raw_mode(image) else 8
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (8,)))
    if image.format == "PPM":
        arguments = image.tile[0].args
        white = arguments[1] if isinstance(arguments, tuple) and len(arguments) > 1 else 255
        return 16 if isinstance(white, int) and white > 255 else 8
    if image.format == "AVIF":
        assert image.fp is not None  # the file is open
        image.fp.seek(0)
        head = image.fp.read(1 << 16)
        image.fp.seek(0)
        # The configuration of each coded image: marker, profile and level, then the flags.
        flags = [each[2] for each in head.split(b"av1C")[1:] if len(each) > 2]
        return max((8 + 2 * (each >> 6 & 1) + 2 * (each >> 5 & 1) for each in flags), default=8)
    return 8


def is_signed(image: ImageFile.ImageFile) -> bool:
    """Whether any channel of a TIFF has signed integers."""
    if not isinstance(image, TiffImageFile):
        return False
    return bool(np.any(np.asarray(image.tag_v2.get(ExifTags.Base.SampleFormat, 1)) == 2))


def raw_mode(image: ImageFile.ImageFile) -> str:
    """The file's pixel format as a Pillow raw mode: "RGB;16B" has 16 bits, high byte first."""
    arguments = image.tile[0].args if image.tile else ""
    return arguments if isinstance(arguments, str) else arguments[0] if arguments else ""


def byte_modes(image: ImageFile.ImageFile) -> tuple[str, str | None] | None:
    """Raw modes that decode the high and the low bytes; None if Pillow has none.

    Grey with alpha takes one decode, of its four bytes per pixel as RGBA.
    """
    kind, _, order = raw_mode(image).partition(";16")
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    planar = tags.get(ExifTags.Base.PlanarConfiguration) == 2
    if planar or order not in ("B", "L", "N"):
        return None
    if kind == "LA" and order == "B":
        return "RGBA", None
    if kind not in ("RGB", "RGBX", "RGBA", ALPHA_ASSOCIATED):
        return None
    kind = "RGBA" if kind == ALPHA_ASSOCIATED else kind  # Pillow would divide bytes by alpha
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    high, low = ("L", "B") if little else ("B", "L")
    return f"{kind};16{high}", f"{kind};16{low}"


def decode_as(image: ImageFile.ImageFile, raw: str) -> None:
    """Sets the raw mode of `image`, which is not yet loaded."""
    if raw == "RGBA":
        image._mode = raw
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in image.tile
    ]


def join_bytes(high: Image.Image, low: Image.Image | None, raw: str, transparent) -> Image16:
    """Joins high and low bytes to an image; if `low` is None, `high` has all bytes.

    raw: the result of `raw_mode`. transparent: the colour marked transparent, or None.
    """
    if low is None:
        pixels = np.ascontiguousarray(high).view(">u2").astype(np.uint16)
    else:
        pixels = np.asarray(high).astype(np.uint16)
        pixels <<= 8
        pixels |= np.asarray(low)
    if raw.startswith(ALPHA_ASSOCIATED):
        pixels = _straight(pixels)
    if transparent is not None:
        pixels = with_alpha(pixels, transparent)
    return Image16(pixels, high.info)


def full_range_grey(image: TiffImageFile, grey: Image.Image) -> Image.Image:
    """Maps `grey`, the pixels of the TIFF `image`, to 0..65535 with 0 as black: Pillow neither
    scales 12 bits nor inverts 16 bits with 0 as white.
    """
    levels = np.asarray(grey)
    if bits(image) == 12:
        levels = ((levels.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
    if image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0:
        levels = 65535 - levels
    result = Image.fromarray(levels)
    result.info = grey.info
    return result


def with_alpha(pixels: np.ndarray, transparent) -> np.ndarray:
    """Adds alpha to (H, W, C) uint16: 0 where the colour is `transparent`, else 65535."""
    if np.shape(transparent) not in ((), (pixels.shape[2],)):
        raise InputError(f"{pixels.shape[2]} channels, but {transparent} as transparent colour")
    opaque = (pixels != np.asarray(transparent)).any(2, keepdims=True)
    return np.concatenate([pixels, opaque * np.uint16(65535)], 2)


def _straight(pixels: np.ndarray) -> np.ndarray:
    """Converts RGBA from premultiplied to straight alpha."""
    alpha = np.maximum(pixels[..., 3:], 1).astype(np.uint64)
    colour = (pixels[..., :3] * np.uint64(65535) + alpha // 2) // alpha
    return np.concatenate([np.minimum(colour, 65535).astype(np.uint16), pixels[..., 3:]], 2)
