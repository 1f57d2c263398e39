"""What of a picture is no pixel and is kept all the same: colour profile, EXIF, resolution."""

import struct
from contextlib import suppress

from PIL import ExifTags, Image, UnidentifiedImageError

from espan.images.files.pillow import decoding

KEPT = ("icc_profile", "exif", "dpi")
# What a TIFF says of the picture; its other tags describe how the pixels are stored.
TIFF_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Orientation,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)

# What Pillow raises on damaged files. Its documentation promises the first three; the next ones
# came out of files with bytes flipped at random.
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    EOFError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    struct.error,
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def of(info: dict) -> dict:
    """Of what Pillow found in a file, what goes into the result."""
    return {key: info[key] for key in KEPT if info.get(key)}


def exif_of_tiff(image: Image.Image) -> bytes:
    with suppress(*DECODE_ERRORS):  # damaged EXIF is dropped
        tags, exif = image.getexif(), Image.Exif()
        for tag in TIFF_TAGS:
            if tag in tags:
                exif[tag] = tags[tag]
        for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if details := tags.get_ifd(group):
                exif.get_ifd(group).update(details)
        return exif.tobytes() if len(exif) or exif.get_ifd(ExifTags.IFD.Exif) else b""
    return b""


def for_file(info: dict, size: tuple[int, int], name: str) -> dict:
    """What goes into a file of format `name`, the size tags made true."""
    keep = of(info)
    if dpi := _resolution(keep.pop("dpi", ())):
        keep["dpi"] = dpi
    if (data := keep.pop("exif", None)) and name != "BMP":
        with suppress(*DECODE_ERRORS), decoding():  # damaged EXIF is dropped
            exif = Image.Exif()
            exif.load(data)
            details = exif.get_ifd(ExifTags.IFD.Exif)
            for tag, side in zip(_SIZE_TAGS, size, strict=True):
                if tag in details:
                    details[tag] = side
            keep["exif"] = exif.tobytes()
    return keep


def _resolution(dpi) -> tuple[float, float] | None:
    """Two numbers that can be written; damaged files have text there, or NaN."""
    with suppress(TypeError, ValueError, ArithmeticError):
        across, down = (float(each) for each in dpi)
        if 0 < across < 2**16 and 0 < down < 2**16:
            return across, down
    return None
