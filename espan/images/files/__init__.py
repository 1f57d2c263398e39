"""Picture files: strict about what goes in, whole or absent coming out.

The only place that reads and writes pictures.
"""

from espan.images.files.reading import (
    LIMITS,
    MAX_INPUT_PIXELS,
    MAX_OUTPUT_PIXELS,
    READ_FORMATS,
    Limits,
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
    "LIMITS",
    "MAX_INPUT_PIXELS",
    "MAX_OUTPUT_PIXELS",
    "READ_FORMATS",
    "READ_SUFFIXES",
    "WRITE_FORMATS",
    "Limits",
    "check_output",
    "check_size",
    "format_of",
    "read",
    "read_rgb",
    "rows",
    "takes_rows",
    "write",
    "writer",
]
