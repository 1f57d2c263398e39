"""Picture files: strict about what goes in, whole or absent coming out.

The only file that reads and writes pictures. Pillow decodes, with an allow-list of formats.
"""

import logging
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from espan.atomic import whole_file
from espan.errors import EspanError, InputError, LimitError, OutputError

# It logs what it finds in damaged TIFFs without naming them; the errors raised here do.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)

READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
WRITE_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
READ_SUFFIXES = (*WRITE_FORMATS, ".gif", ".ppm", ".pgm", ".pnm", ".jpe", ".jfif", ".mpo")

# What an encoder takes: (longest side, modes).
_LIMITS = {
    "PNG": (2**31 - 1, ("L", "LA", "RGB", "RGBA", "I;16", "P", "1")),
    "JPEG": (65535, ("L", "RGB")),
    "WEBP": (16383, ("L", "RGB", "RGBA", "LA")),
    "TIFF": (2**31 - 1, ("L", "LA", "RGB", "RGBA", "I;16", "P", "1")),
    "BMP": (2**31 - 1, ("L", "RGB", "P", "1")),
}
_SAVE = {
    "PNG": {"compress_level": 1},
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}

_SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
_TIFF_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Orientation,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_METADATA = ("icc_profile", "exif", "dpi")

# Pixels of one picture, from its header. The first is the size at which Pillow begins to warn.
MAX_INPUT_PIXELS = 89_478_485
MAX_OUTPUT_PIXELS = 1_500_000_000

# What Pillow raises on damaged files. Its documentation promises the first three; the next three
# came out of files with bytes flipped at random.
_DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def read(
    path: str | Path,
    *,
    scale: float = 1,
    max_input: int = MAX_INPUT_PIXELS,
    max_output: int = MAX_OUTPUT_PIXELS,
) -> Image.Image:
    """The picture in a file: decoded whole, turned upright, palettes spelled out.

    Mode L, LA, RGB, RGBA or I;16; `info` keeps icc_profile, exif (orientation removed) and dpi.
    The pixel limits are checked on the header, before anything is decoded; `scale` is what the
    picture will be multiplied by.

    Raises InputError naming the file: missing, not a picture, damaged, animated, CMYK, 16-bit
    colour (which Pillow would cut to 8 bits); LimitError when too large.
    """
    path = Path(path)
    with _naming(path), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module="PIL")  # of damage it repairs, such as bad EXIF
        with Image.open(path, formats=READ_FORMATS) as image:
            _check_size(image.size, scale, max_input, max_output)
            _refuse_what_pillow_would_change(image, path)
            image.load()
            if image.format == "TIFF":
                image.info["exif"] = _exif_of_tiff(image)
            picture = _upright(image)
    picture.info = {key: picture.info[key] for key in _METADATA if picture.info.get(key)}
    return picture


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns everything that can go wrong with a file into one InputError that names it."""
    try:
        yield
    except EspanError as error:
        raise type(error)(f"{path}: {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LimitError(f"{path}: too large: {error}") from error
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        known = ", ".join(READ_FORMATS)
        reason = "empty file" if empty else f"not a picture in a known format ({known})"
        raise InputError(f"{path}: {reason}") from error
    except _DECODE_ERRORS as error:
        if isinstance(error, OSError) and error.strerror:  # the system's own, Pillow's have none
            raise InputError(f"{path}: {error.strerror.lower()}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: damaged or truncated: {reason}") from error


def _check_size(size: tuple[int, int], scale: float, max_input: int, max_output: int) -> None:
    width, height = size
    if width * height > max_input:
        raise LimitError(f"{width} x {height} pixels are over the limit of {max_input:,}")
    if round(width * scale) * round(height * scale) > max_output:
        raise LimitError(
            f"{width} x {height} pixels x{scale:g} are over the output limit of {max_output:,}"
        )


def _refuse_what_pillow_would_change(image: Image.Image, path: Path) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # what phones write as .jpg: pictures behind the first
        raise InputError(f"animated or multi-page ({frames} frames); extract the frames first")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B"):
        raise InputError(f"{image.mode} pixels are not supported; convert to RGB or grey first")
    if image.mode.startswith("I;16") and "transparency" in image.info:
        raise InputError(
            "16-bit grey with a transparent colour; convert it to grey and alpha first"
        )
    if image.mode in ("RGB", "RGBA", "LA") and _bits(image, path) > 8:
        raise InputError(
            "16-bit colour, which would be cut to 8 bits; convert it to 8 bits, or pass a uint16 "
            "array to espan.upscale"
        )


def _bits(image: Image.Image, path: Path) -> int:
    """Bits per channel as the file has them: Pillow shows colour as 8 bits whatever it holds."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]  # signature 8, chunk head 8, width 4, height 4, depth
    if image.format == "TIFF":
        return max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (8,)))
    if image.format == "PPM":
        _, _, _, arguments = image.tile[0]
        white = arguments[1] if isinstance(arguments, tuple) and len(arguments) > 1 else 255
        return 16 if isinstance(white, int) and white > 255 else 8
    return 8


def _exif_of_tiff(image: Image.Image) -> bytes:
    """What a TIFF says of the picture; its other tags describe how the pixels are stored."""
    tags, exif = image.getexif(), Image.Exif()
    for tag in _TIFF_TAGS:
        if tag in tags:
            exif[tag] = tags[tag]
    for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if details := tags.get_ifd(group):
            exif.get_ifd(group).update(details)
    return exif.tobytes() if len(exif) or exif.get_ifd(ExifTags.IFD.Exif) else b""


def _upright(image: Image.Image) -> Image.Image:
    """Pixels turned as EXIF says (and the tag removed), in a mode the networks take."""
    with suppress(*_DECODE_ERRORS):  # damaged EXIF is no reason to refuse the pixels
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


def check_output(path: str | Path, mode: str, size: tuple[int, int]) -> str:
    """The format a path asks for; OutputError if that format cannot hold such a picture."""
    path = Path(path)
    name = WRITE_FORMATS.get(path.suffix.lower())
    if name is None:
        known = ", ".join(WRITE_FORMATS)
        hint = "" if path.suffix else f"; for a folder, write {path}/"
        what = path.suffix or "a file without extension"
        raise OutputError(f"{path}: cannot write {what} (known: {known}){hint}")
    if not os.access(path.parent, os.W_OK):
        reason = "not writable" if path.parent.is_dir() else "no such folder"
        raise OutputError(f"{path}: {path.parent}: {reason}")
    longest, modes = _LIMITS[name]
    if mode not in modes:
        what = "transparency" if mode in ("LA", "RGBA") else f"{mode} pixels"
        raise OutputError(f"{path}: {name} cannot hold {what}; choose png")
    if max(size) > longest:
        raise OutputError(
            f"{path}: {name} holds at most {longest} pixels a side, the result is "
            f"{size[0]} x {size[1]}; choose png"
        )
    return name


def _metadata(image: Image.Image, name: str) -> dict:
    """What of the picture's metadata goes into a file of format `name`, its size tags made true."""
    keep = {key: image.info[key] for key in _METADATA if key in image.info}
    if not all(0 < each < 2**16 for each in keep.get("dpi", ())):  # NaN fails this too
        del keep["dpi"]
    if keep.pop("exif", None) and name != "BMP":
        with suppress(*_DECODE_ERRORS), warnings.catch_warnings():  # damaged EXIF is dropped
            warnings.simplefilter("ignore")
            exif = image.getexif()
            details = exif.get_ifd(ExifTags.IFD.Exif)
            for tag, side in zip(_SIZE_TAGS, image.size, strict=True):
                if tag in details:
                    details[tag] = side
            keep["exif"] = exif.tobytes()
    return keep


def write(path: str | Path, image: Image.Image) -> Path:
    """Writes the picture with its profile, EXIF and resolution; the format is the extension's.

    The file appears whole or not at all, an old one stays until then. OutputError otherwise.
    """
    return writer(path, image)()


def writer(path: str | Path, image: Image.Image) -> Callable[[], Path]:
    """`write` up to the writing: a function of no arguments, which another thread may call."""
    path = Path(path)
    name = check_output(path, image.mode, image.size)
    options = {**_SAVE.get(name, {}), **_metadata(image, name)}
    if name == "TIFF" and "exif" in options:
        del options["compression"]  # Pillow writes EXIF into uncompressed TIFF only

    def finish() -> Path:
        with whole_file(path) as temporary:
            image.save(temporary, format=name, **options)
        return path

    return finish
