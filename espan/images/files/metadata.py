"""Metadata of images: colour profile, EXIF, XMP, IPTC, resolution."""

import re
import struct
from contextlib import suppress

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from espan.images.files.pillow import decoding

KEPT = ("icc_profile", "exif", "dpi", "xmp", "iptc")
# Image sizes in XMP, as attributes or elements.
_XMP_SIZES = (
    (rb"(tiff:ImageWidth|exif:PixelXDimension)", 0),
    (rb"(tiff:ImageLength|exif:PixelYDimension)", 1),
)
# Capacity of a JPEG segment in bytes.
_SEGMENT = 65502
_IPTC = 0x0404  # the Photoshop resource for IPTC in JPEG
# TIFF tags about the image; the other tags describe the storage of the pixels.
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

# Errors of Pillow on damaged files. Its documentation lists the first three; files with randomly
# flipped bytes raised the others.
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
    """Selects the metadata that results keep."""
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


def add_iptc(image: Image.Image) -> None:
    """Stores IPTC from JPEG or TIFF as `info["iptc"]`, and a TIFF's XMP as `info["xmp"]`."""
    found = image.info.get("photoshop", {})
    data = found.get(_IPTC) if isinstance(found, dict) else None
    if isinstance(image, TiffImageFile):
        data = image.tag_v2.get(ExifTags.Base.IPTCNAA)
        image.info.setdefault("xmp", image.tag_v2.get(ExifTags.Base.XMLPacket))
    if isinstance(data, bytes):
        image.info["iptc"] = data


def _xmp(data: object, size: tuple[int, int]) -> bytes:
    """Updates the image sizes in an XMP packet."""
    packet = data.encode() if isinstance(data, str) else data
    if not isinstance(packet, bytes):
        return b""
    for names, side in _XMP_SIZES:
        value = str(size[side]).encode()
        packet = re.sub(names + rb"(\s*=\s*[\"']|>)\d+", rb"\g<1>\g<2>" + value, packet)
    return packet


def _photoshop(iptc: bytes) -> bytes:
    """Makes an APP13 segment of a JPEG."""
    block = b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    data = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + struct.pack(">H", len(data) + 2) + data


def for_file(info: dict, size: tuple[int, int], name: str) -> dict:
    """Selects metadata for a file of format `name`, with updated size tags."""
    keep = of(info)
    if dpi := _resolution(keep.pop("dpi", ())):
        keep["dpi"] = dpi
    packet, iptc = _xmp(keep.pop("xmp", b""), size), keep.pop("iptc", b"")
    if packet and name != "BMP" and (name != "JPEG" or len(packet) <= _SEGMENT):
        keep["xmp"] = packet
    if iptc and name == "JPEG" and len(iptc) < _SEGMENT - 40:
        keep["extra"] = _photoshop(iptc)
    elif iptc and name == "TIFF":
        keep["iptc"] = iptc
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
    """Two valid numbers or None: damaged files may have text or NaN."""
    with suppress(TypeError, ValueError, ArithmeticError):
        across, down = (float(each) for each in dpi)
        if 0 < across < 2**16 and 0 < down < 2**16:
            return across, down
    return None
