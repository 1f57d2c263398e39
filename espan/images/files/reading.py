"""Picture files in: strict about what they are. Pillow decodes, with an allow-list of formats."""

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
# What becomes of values that a decoder does not look at before it computes with them; their texts
# are about Python.
_STUMBLED = (TypeError, AttributeError, LookupError, ArithmeticError)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class AnimatedError(InputError):
    """A file of several frames, which is no picture: `espan.animation` takes it."""


class PagesError(InputError):
    """A TIFF of several pages, which is no single image: `read_pages` takes it."""


def read(
    source: str | Path | Encoded, *, scale: float | Size = 1, limits: Limits = LIMITS
) -> Image.Image | Image16:
    """The picture in a file: decoded whole, turned upright, palettes spelled out.

    A PIL image of mode L, LA, RGB, RGBA or I;16, or an Image16 for colour of 10 to 16 bits; `info`
    keeps icc_profile, exif (orientation removed), XMP, IPTC and dpi. CMYK becomes sRGB. The pixel
    limits are checked on the header, before anything is decoded; `scale` is what the picture will
    be multiplied by. source: a path, or bytes.

    Raises InputError naming the file: missing, not a picture, damaged, animated, CMYK that no
    profile describes, colour that would be cut to 8 bits; LimitError when too large.
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
    `make(True)` and a warning that names `what`."""
    try:
        with limited(limits):
            return make(False)
    except DECODE_ERRORS as error:
        hopeless = isinstance(error, EspanError | UnidentifiedImageError)
        if not limits.allow_truncated or hopeless or getattr(error, "strerror", None):
            raise
        damage = error
    with decoding(limits.max_input, truncated=True):
        picture = make(True)
    log.warning("%s: damaged or truncated, read as far as it goes: %s", what, damage)
    return picture


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
        picture = heif.read(openable(path), check)
        picture.info = metadata.of(picture.info)
        return picture
    with Image.open(openable(path), formats=READ_FORMATS) as image:
        check(image.size)
        _refuse_several_frames(image)
        return picture_of(image, path)


def picture_of(image: ImageFile.ImageFile, path: Source) -> Image.Image | Image16:
    """The frame that an opened image is at, as `read` has it."""
    _refuse_what_pillow_would_change(image)
    picture = _deep(image, path) or _loaded(image)
    if picture.mode == "CMYK":
        assert isinstance(picture, Image.Image)  # an Image16 has other modes
        picture, profile = cmyk.to_srgb(picture)
        log.info("%s: CMYK, made sRGB through the profile %s", path, profile)
    picture.info = metadata.of(picture.info)
    return picture


def _loaded(image: ImageFile.ImageFile) -> Image.Image:
    image.load()
    metadata.note_iptc(image)
    if isinstance(image, TiffImageFile):
        image.info["exif"] = metadata.exif_of_tiff(image)
        if image.mode == "I;16":
            return depth.whole_grey(image, _upright(image))
    return _upright(image)


def _deep(image: ImageFile.ImageFile, path: Source) -> Image16 | None:
    """The picture if it has more than 8 bits and more than grey."""
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
    raw_modes = depth.halves(image)
    assert raw_modes is not None  # what has none was refused
    high_as, low_as = raw_modes
    depth.show(image, high_as)
    high, low = _loaded(image), None
    if low_as:
        with Image.open(openable(path), formats=READ_FORMATS) as again:
            again.seek(image.tell())
            again.info.pop("transparency", None)
            depth.show(again, low_as)
            low = _loaded(again)
    return depth.join(high, low, raw, transparent)


@contextmanager
def naming(path: Source | str) -> Iterator[None]:
    """Turns everything that can go wrong with a file, or a page of it, into one InputError that
    names it."""
    try:
        yield
    except EspanError as error:
        raise type(error)(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        why = "no picture" if isinstance(path, str) else _why_unknown(path)
        raise InputError(f"{path}: {why}") from error
    except DECODE_ERRORS as error:
        if isinstance(error, OSError) and error.strerror:  # the system's own, Pillow's have none
            raise InputError(f"{path}: {error.strerror.lower()}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, _STUMBLED):
            reason = "a value in it is of the wrong kind"
        raise InputError(f"{path}: damaged or truncated: {reason}") from error


def suffix_of(source: Encoded) -> str:
    """The ending of a result in the format of a picture's bytes, ".png" where that is not written.

    From the header alone, and without errors: `read` has them.
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
        return "a TIFF that is damaged or has pixels of a kind that is not read; convert it to PNG"
    known = ", ".join((*READ_FORMATS, "HEIC"))
    return f"not a picture in a known format ({known})"


def check_size(size: tuple[int, int], scale: float | Size, limits: Limits) -> None:
    """LimitError for a picture of (width, height) pixels that is too large, or its result."""
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
    if frames > 1 and image.format != "MPO":  # what phones write as .jpg: pictures behind the first
        if image.format in ANIMATED:
            raise AnimatedError(f"an animation of {frames} frames; see espan.upscale_animation")
        raise PagesError(f"{frames} pages, which only a TIFF can hold; name a .tif file as output")


def _refuse_what_pillow_would_change(image: ImageFile.ImageFile) -> None:
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B"):
        raise InputError(f"{image.mode} pixels are not supported; convert to RGB or grey first")
    if depth.is_signed(image):  # Pillow would read -1 as 255
        raise InputError("signed pixels are not supported; convert to unsigned ones first")
    bits = depth.bits(image)
    if image.mode in ("L", "RGB", "RGBA", "LA", "CMYK") and bits > 8 and not depth.halves(image):
        kind, what = image.format, "grey" if image.mode.startswith("L") else "colour"
        raise InputError(
            f"{bits}-bit {what}, which would be cut to 8 bits: of {kind} this is not read; convert "
            "it to PNG"
        )


def _upright(image: Image.Image) -> Image.Image:
    """Pixels turned as EXIF says (and the tag removed), in a mode the networks take."""
    with suppress(*DECODE_ERRORS):  # damaged EXIF is no reason to refuse the pixels
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
    """The picture in a file as (H, W, 3) uint8: grey as three equal channels, alpha left out."""
    picture = read(path)
    if picture.mode == "I;16":
        grey = np.round(np.asarray(picture) / 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, 2)
    return np.asarray(picture.convert("RGB"))
