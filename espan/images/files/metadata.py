"""What of a picture is no pixel and is kept all the same: colour profile, EXIF, resolution."""

import re
import struct
from contextlib import suppress

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from espan.images.files.pillow import decoding

KEPT = ("icc_profile", "exif", "dpi", "xmp", "iptc")
# Sizes as XMP notes them, as attributes and as elements.
_XMP_SIZES = (
    (rb"(tiff:ImageWidth|exif:PixelXDimension)", 0),
    (rb"(tiff:ImageLength|exif:PixelYDimension)", 1),
)
# Bytes that one segment of a JPEG has room for.
_SEGMENT = 65502
_IPTC = 0x0404  # a resource of Photoshop, which JPEGs keep it in
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


def note_iptc(image: Image.Image) -> None:
    """What JPEG and TIFF have of IPTC goes under one name."""
    found = image.info.get("photoshop", {})
    data = found.get(_IPTC) if isinstance(found, dict) else None
    if isinstance(image, TiffImageFile):
        data = image.tag_v2.get(ExifTags.Base.IPTCNAA)
        image.info.setdefault("xmp", image.tag_v2.get(ExifTags.Base.XMLPacket))
    if isinstance(data, bytes):
        image.info["iptc"] = data


def _xmp(data: object, size: tuple[int, int]) -> bytes:
    """The packet with the sizes it names made true."""
    packet = data.encode() if isinstance(data, str) else data
    if not isinstance(packet, bytes):
        return b""
    for names, side in _XMP_SIZES:
        said = str(size[side]).encode()
        packet = re.sub(names + rb"(\s*=\s*[\"']|>)\d+", rb"\g<1>\g<2>" + said, packet)
    return packet


def _photoshop(iptc: bytes) -> bytes:
    """A segment APP13 of a JPEG."""
    block = b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    data = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + struct.pack(">H", len(data) + 2) + data


def for_file(info: dict, size: tuple[int, int], name: str) -> dict:
    """What goes into a file of format `name`, the size tags made true."""
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
    """Two numbers that can be written; damaged files have text there, or NaN."""
    with suppress(TypeError, ValueError, ArithmeticError):
        across, down = (float(each) for each in dpi)
        if 0 < across < 2**16 and 0 < down < 2**16:
            return across, down
    return None
