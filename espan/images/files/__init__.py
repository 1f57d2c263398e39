"""Picture files: strict about what goes in, whole or absent coming out.

The only place that reads and writes pictures.
"""

from espan.images.files.jpeg import jpeg_quality
from espan.images.files.reading import (
    READ_FORMATS,
    check_size,
    read,
    read_rgb,
)
from espan.images.files.writing import (
    WRITE_FORMATS,
    check_output,
    format_of,
    rows,
    takes_rows,
    write,
    writer,
)

READ_SUFFIXES = (
    *WRITE_FORMATS,
    ".gif",
    ".ppm",
    ".pgm",
    ".pnm",
    ".jpe",
    ".jfif",
    ".mpo",
    ".heic",
    ".heif",
    ".hif",
)

__all__ = [
    "READ_FORMATS",
    "READ_SUFFIXES",
    "WRITE_FORMATS",
    "check_output",
    "check_size",
    "format_of",
    "jpeg_quality",
    "read",
    "read_rgb",
    "rows",
    "takes_rows",
    "write",
    "writer",
]
