"""Reads image files with Pillow, from an allow-list of formats, with strict checks."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from espan.errors import EspanError, InputError, LimitError
from espan.images.files import cmyk, depth, heif, metadata
from espan.images.files.metadata import DECODE_ERRORS
from espan.images.files.pillow import READ_FORMATS, decoding
from espan.images.files.streams import Encoded
from espan.images.files.writing import WRITE_FORMATS
from espan.images.image16 import Image16
from espan.options import LIMITS, Limits
from espan.sizes import Size, result_size, scale_text
from espan.system.paths import as_path, why_no_file

log = logging.getLogger("espan")

Source: TypeAlias = Path | Encoded

ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
# Errors from values that a decoder uses unchecked. Their messages describe Python, not the file.
_UNCHECKED = (TypeError, AttributeError, LookupError, ArithmeticError)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class AnimatedError(InputError):
    """A file with several frames, which `espan.animation` reads."""


class PagesError(InputError):
    """A TIFF of several pages, which is no single image: `read_pages` takes it."""


def read(
    source: str | Path | Encoded, *, scale: float | Size = 1, limits: Limits = LIMITS
) -> Image.Image | Image16:
    """Reads the image in a file: fully decoded, upright, palettes expanded.

    Returns a PIL image of mode L, LA, RGB, RGBA or I;16, or an Image16 for colour of 10 to 16 bits;
    `info` keeps icc_profile, exif (without orientation), XMP, IPTC and dpi. Converts CMYK to sRGB.
    Checks the pixel limits on the header, before decoding; `scale` is the factor by which the image
    will be upscaled. source: a path, or bytes.

    Raises InputError naming the file: missing, not an image, damaged, animated, CMYK without a
    profile, colour that would be reduced to 8 bits; LimitError if it is too large.
    """
    path = source if isinstance(source, Encoded) else as_path(source, "image")

    def check(size: tuple[int, int]) -> None:
        check_size(size, scale, limits)

    with naming(path):
        if isinstance(path, Path) and (problem := why_no_file(path)):
            raise InputError(problem)  # a FIFO would be waited for
        return decoded(path, limits, lambda again: _read(path, check))


def decoded(
    what: object, limits: Limits, make: Callable[[bool], Image.Image | Image16]
) -> Image.Image | Image16:
    """`make(False)`, with Pillow set to the limits; where these allow damage, on damage
    `make(True)` and a warning that names `what`.
    """
    try:
        with limited(limits):
            return make(False)
    except DECODE_ERRORS as error:
        hopeless = isinstance(error, EspanError | UnidentifiedImageError)
        if not limits.allow_truncated or hopeless or getattr(error, "strerror", None):
            raise
        damage = error
    with decoding(limits.max_input, truncated=True):
        decoded = make(True)
    log.warning("%s: damaged or truncated, read as far as it goes: %s", what, damage)
    return decoded


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Pillow set to read images within the limits; LimitError for larger ones."""
    try:
        with decoding(limits.max_input):
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        number = re.search(r"\d{4,}", str(error))  # the first one is its pixels
        pixels = f"{int(number[0]):,} pixels are" if number else "it is"
        raise LimitError(f"{pixels} over the limit of {limits.max_input:,}") from error


def _read(path: Source, check: Callable[[tuple[int, int]], None]) -> Image.Image | Image16:
    if heif.is_heif(openable(path)):
        decoded = heif.read(openable(path), check)
        decoded.info = metadata.of(decoded.info)
        return decoded
    with Image.open(openable(path), formats=READ_FORMATS) as image:
        check(image.size)
        _refuse_several_frames(image)
        return image_of(image, path)


def image_of(image: ImageFile.ImageFile, path: Source) -> Image.Image | Image16:
    """The frame that an opened image is at, as `read` has it."""
    _refuse_what_pillow_would_change(image)
    decoded = _deep(image, path) or _loaded(image)
    if decoded.mode == "CMYK":
        assert isinstance(decoded, Image.Image)  # an Image16 has other modes
        decoded, profile = cmyk.to_srgb(decoded)
        log.info("%s: CMYK, made sRGB through the profile %s", path, profile)
    decoded.info = metadata.of(decoded.info)
    return decoded


def _loaded(image: ImageFile.ImageFile) -> Image.Image:
    image.load()
    metadata.add_iptc(image)
    if isinstance(image, TiffImageFile):
        image.info["exif"] = metadata.exif_of_tiff(image)
        if image.mode == "I;16":
            return depth.full_range_grey(image, _upright(image))
    return _upright(image)


def _deep(image: ImageFile.ImageFile, path: Source) -> Image16 | None:
    """Returns the image if it has more than 8 bits and is not plain grey, else None."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        if transparent is None:
            return None
        del image.info["transparency"]
        grey = _loaded(image)
        return Image16(depth.with_alpha(np.asarray(grey)[..., None], transparent), grey.info)
    if depth.bits(image) <= 8:
        return None
    raw = depth.raw_mode(image)
    image.info.pop("transparency", None)
    raw_modes = depth.byte_modes(image)
    assert raw_modes is not None  # others were refused
    high_as, low_as = raw_modes
    depth.decode_as(image, high_as)
    high, low = _loaded(image), None
    if low_as:
        with Image.open(openable(path), formats=READ_FORMATS) as again:
            again.seek(image.tell())
            again.info.pop("transparency", None)
            depth.decode_as(again, low_as)
            low = _loaded(again)
    return depth.join_bytes(high, low, raw, transparent)


@contextmanager
def naming(path: Source | str) -> Iterator[None]:
    """Turns everything that can go wrong with a file, or a page of it, into one InputError that
    names it.
    """
    try:
        yield
    except EspanError as error:
        raise type(error)(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        why = "no image" if isinstance(path, str) else _why_unknown(path)
        raise InputError(f"{path}: {why}") from error
    except DECODE_ERRORS as error:
        if isinstance(error, OSError) and error.strerror:  # the system's own, Pillow's have none
            raise InputError(f"{path}: {error.strerror.lower()}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, _UNCHECKED):
            reason = "a value has the wrong type"
        raise InputError(f"{path}: damaged or truncated: {reason}") from error


def suffix_of(source: Encoded) -> str:
    """The suffix for a result in the format of an encoded image, or ".png" if that is not written.

    Reads only the header and raises no errors: `read` raises them.
    """
    with suppress(*DECODE_ERRORS), decoding(), Image.open(BytesIO(source.data)) as image:
        name = {"MPO": "JPEG"}.get(image.format or "", image.format)
        return next((each for each in WRITE_FORMATS if WRITE_FORMATS[each] == name), ".png")
    return ".png"


def openable(source: Source) -> Path | BytesIO:
    return source if isinstance(source, Path) else BytesIO(source.data)


def _why_unknown(source: Source) -> str:
    with source.open("rb") if isinstance(source, Path) else BytesIO(source.data) as file:
        head = file.read(4)
    if not head:
        return "empty file"
    if head in _TIFF:
        return "a TIFF that is damaged or has an unsupported pixel format; convert it to PNG"
    known = ", ".join((*READ_FORMATS, "HEIC"))
    return f"not an image in a known format ({known})"


def check_size(size: tuple[int, int], scale: float | Size, limits: Limits) -> None:
    """Raises LimitError if an image of (width, height) pixels, or its result, is too large."""
    width, height = size
    if width * height > limits.max_input:
        raise LimitError(f"{width} x {height} pixels are over the limit of {limits.max_input:,}")
    across, down = result_size(scale, size)
    if across * down > limits.max_output:
        most = limits.max_output
        raise LimitError(
            f"{width} x {height} pixels {scale_text(scale)} are over the output limit of {most:,}"
        )


def _refuse_several_frames(image: ImageFile.ImageFile) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # what phones write as .jpg: images behind the first
        if image.format in ANIMATED:
            raise AnimatedError(f"an animation of {frames} frames; see espan.upscale_animation")
        raise PagesError(f"{frames} pages, which only a TIFF can hold; name a .tif file as output")


def _refuse_what_pillow_would_change(image: ImageFile.ImageFile) -> None:
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B"):
        raise InputError(f"{image.mode} pixels are not supported; convert to RGB or grey first")
    if depth.is_signed(image):  # Pillow would read -1 as 255
        raise InputError("signed pixels are not supported; convert to unsigned ones first")
    bits = depth.bits(image)
    if (
        image.mode in ("L", "RGB", "RGBA", "LA", "CMYK")
        and bits > 8
        and not depth.byte_modes(image)
    ):
        kind, what = image.format, "grey" if image.mode.startswith("L") else "colour"
        raise InputError(
            f"{bits}-bit {what} in {kind} is not supported, as it would be reduced to 8 bits; "
            "convert it to PNG"
        )


def _upright(image: Image.Image) -> Image.Image:
    """Applies and removes the EXIF orientation, and converts to a mode that networks support."""
    with suppress(*DECODE_ERRORS):  # ignore damaged EXIF
        image = ImageOps.exif_transpose(image)
    if image.mode == "1":
        transparent = image.info.get("transparency")
        image = image.convert("L")
        if transparent is not None:
            image.info["transparency"] = 255 * bool(transparent)
    if image.mode in ("P", "PA") or "transparency" in image.info:
        alpha = image.mode == "PA" or "transparency" in image.info
        grey = image.mode == "L"
        return image.convert(("LA" if grey else "RGBA") if alpha else "RGB")
    if image.mode == "I;16B":
        upright = Image.fromarray(np.asarray(image).astype(np.uint16))
        upright.info = image.info
        return upright
    return image.copy()


def read_rgb(path: str | Path) -> np.ndarray:
    """Reads an image as (H, W, 3) uint8: grey as three equal channels, without alpha."""
    image = read(path)
    if image.mode == "I;16":
        grey = np.round(np.asarray(image) / 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, 2)
    return np.asarray(image.convert("RGB"))
