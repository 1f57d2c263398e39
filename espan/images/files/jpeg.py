"""Estimates the quality of a JPEG file from its quantisation tables."""

from pathlib import Path

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from espan.images.files.metadata import DECODE_ERRORS
from espan.images.files.pillow import decoding
from espan.options import LIMITS
from espan.system.paths import why_no_file

# Sum of the standard's luminance table (ITU-T T.81, annex K), which encoders scale.
STANDARD = 3688


def jpeg_quality(path: str | Path) -> int | None:
    """Estimates the quality, 1 to 100 as in libjpeg, that a JPEG file was saved with.

    Reads only the header: compares the sum of the luminance table with the standard's. Returns None
    for other formats and for files that cannot be read.
    """
    if why_no_file(Path(path)):  # opening a FIFO would block
        return None
    try:
        with decoding(LIMITS.max_input), Image.open(path, formats=["JPEG"]) as image:
            tables = image.quantization if isinstance(image, JpegImageFile) else {}
    except (*DECODE_ERRORS, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    if 0 not in tables:
        return None
    scale = 100 * sum(tables[0]) / STANDARD
    return max(round(100 - scale / 2 if scale <= 100 else 5000 / scale), 1)
