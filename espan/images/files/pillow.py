"""Pillow's settings, which belong to the whole process, turned for one file at a time."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile

READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")

# It logs what it finds in damaged TIFFs without naming them; the errors raised here do.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)


class _Decoding:
    """Threads that want Pillow as it is decode side by side; one that wants it otherwise alone."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.inside, self.alone = 0, False
        self.warnings = warnings.catch_warnings()

    @contextmanager
    def __call__(self, pixels: int, truncated: bool) -> Iterator[None]:
        alone, usual = self._enter(pixels, truncated)
        try:
            if alone:
                Image.MAX_IMAGE_PIXELS = None if usual is None else max(pixels, usual)
                ImageFile.LOAD_TRUNCATED_IMAGES = truncated
            yield
        finally:
            if alone:
                Image.MAX_IMAGE_PIXELS = usual
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._leave()

    def _enter(self, pixels: int, truncated: bool) -> tuple[bool, int | None]:
        """(whether the caller is alone inside, Pillow's own limit)."""

        def alone() -> bool:
            usual = Image.MAX_IMAGE_PIXELS
            return truncated or (usual is not None and pixels > usual)

        with self.changed:
            # The limit is read in here only: another thread may have turned it until then.
            self.changed.wait_for(lambda: not self.alone and not (self.inside and alone()))
            usual, self.alone = Image.MAX_IMAGE_PIXELS, alone()
            self.inside += 1
            if self.inside == 1:
                # Two threads that each saved and restored the filters would leave them changed.
                self.warnings = warnings.catch_warnings()
                self.warnings.__enter__()
                # Of damage it repairs, such as bad EXIF.
                warnings.filterwarnings("ignore", module="PIL")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
            return self.alone, usual

    def _leave(self) -> None:
        with self.changed:
            self.inside -= 1
            self.alone = False
            if self.inside == 0:
                self.warnings.__exit__(None, None, None)
            self.changed.notify_all()


_decoding = _Decoding()


def decoding(pixels: int = 0, truncated: bool = False):
    """Pillow set to read files of up to `pixels`, quietly; `truncated` ones too if asked for.

    Its limit of pixels is never lowered, and what one file is granted no other is.
    """
    return _decoding(pixels, truncated)


def is_known(head: bytes) -> bool:
    """Whether Pillow would try to read a file with these first bytes."""
    Image.init()
    accepts = (Image.OPEN[name][1] for name in READ_FORMATS if name in Image.OPEN)
    return any(accept is None or accept(head[:16]) for accept in accepts)


def _forget() -> None:
    """A process forked while another thread was inside would wait for that thread for ever."""
    global _decoding
    _decoding = _Decoding()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
