"""What a JPEG file's quantisation tables say of how hard it was compressed."""

from pathlib import Path

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from espan.images.files.metadata import DECODE_ERRORS
from espan.images.files.pillow import decoding
from espan.options import LIMITS
from espan.system.paths import why_no_file

# Sum of the luminance table of the standard (ITU-T T.81, annex K), which encoders scale.
STANDARD = 3688


def jpeg_quality(path: str | Path) -> int | None:
    """About the quality, 1 to 100 as libjpeg counts, that a JPEG file was saved with; else None.

    From the header alone: the size of the luminance table, whatever its shape, against that of the
    standard's. None for other files, and for those that cannot be read.
    """
    if why_no_file(Path(path)):  # a FIFO would be waited for
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
