"""Image files: strict checks on input, atomic output.

No other module reads or writes image files.
"""

from espan.images.files.jpeg import jpeg_quality
from espan.images.files.pages import look as look_at_pages
from espan.images.files.pages import read_pages
from espan.images.files.pillow import READ_FORMATS
from espan.images.files.reading import (
    AnimatedError,
    PagesError,
    Source,
    check_size,
    naming,
    read,
    read_rgb,
    suffix_of,
)
from espan.images.files.streams import (
    Data,
    Pages,
    Stream,
    Target,
    encoded,
    is_data,
    opened,
    stream_to,
)
from espan.images.files.tiff import CLASSIC
from espan.images.files.writing import (
    WRITE_FORMATS,
    check_format,
    check_output,
    check_writable,
    format_of,
    kept_suffix,
    rows,
    suffix_named,
    takes_rows,
    write,
)

READ_SUFFIXES = (
    *WRITE_FORMATS,
    ".gif",
    ".apng",
    ".ppm",
    ".pgm",
    ".pnm",
    ".mpo",
    ".heic",
    ".heif",
    ".hif",
)

# Suffixes of image formats that are not read. In a folder, such files are reported.
UNREAD_SUFFIXES = (
    *(".jp2", ".j2k", ".jxl", ".tga", ".ico", ".icns", ".psd", ".xcf", ".svg", ".eps", ".pcx"),
    *(".dds", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
)

__all__ = [
    "CLASSIC",
    "READ_FORMATS",
    "READ_SUFFIXES",
    "UNREAD_SUFFIXES",
    "WRITE_FORMATS",
    "AnimatedError",
    "Data",
    "Pages",
    "PagesError",
    "Source",
    "Stream",
    "Target",
    "check_format",
    "check_output",
    "check_size",
    "check_writable",
    "encoded",
    "format_of",
    "is_data",
    "jpeg_quality",
    "kept_suffix",
    "look_at_pages",
    "naming",
    "opened",
    "read",
    "read_pages",
    "read_rgb",
    "rows",
    "stream_to",
    "suffix_named",
    "suffix_of",
    "takes_rows",
    "write",
]
