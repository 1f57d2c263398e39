"""Changes Pillow's process-wide settings for one file at a time."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile

READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")

# Pillow logs damage in TIFFs without naming the file; espan's errors name it.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)


class _Decoding:
    """A shared lock for default settings; an exclusive one for changed settings."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.active, self.exclusive = 0, False
        self.warnings = warnings.catch_warnings()

    @contextmanager
    def __call__(self, pixels: int, truncated: bool) -> Iterator[None]:
        exclusive, usual = self._enter(pixels, truncated)
        try:
            if exclusive:
                Image.MAX_IMAGE_PIXELS = None if usual is None else max(pixels, usual)
                ImageFile.LOAD_TRUNCATED_IMAGES = truncated
            yield
        finally:
            if exclusive:
                Image.MAX_IMAGE_PIXELS = usual
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._leave()

    def _enter(self, pixels: int, truncated: bool) -> tuple[bool, int | None]:
        """Returns (whether the lock is exclusive, Pillow's own limit)."""

        def changes() -> bool:
            usual = Image.MAX_IMAGE_PIXELS
            return truncated or (usual is not None and pixels > usual)

        with self.changed:
            # Read the limit only under the lock: another thread may change it until then.
            self.changed.wait_for(lambda: not self.exclusive and not (self.active and changes()))
            usual, self.exclusive = Image.MAX_IMAGE_PIXELS, changes()
            self.active += 1
            if self.active == 1:
                # Once for all threads: overlapping saves and restores would corrupt the filters.
                self.warnings = warnings.catch_warnings()
                self.warnings.__enter__()
                # Warnings about damage that Pillow repairs, such as bad EXIF.
                warnings.filterwarnings("ignore", module="PIL")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
            return self.exclusive, usual

    def _leave(self) -> None:
        with self.changed:
            self.active -= 1
            self.exclusive = False
            if self.active == 0:
                self.warnings.__exit__(None, None, None)
            self.changed.notify_all()


_decoding = _Decoding()


def decoding(pixels: int = 0, truncated: bool = False):
    """Sets Pillow to read files of up to `pixels` without warnings, and `truncated` files if True.

    Never lowers Pillow's pixel limit. The settings do not affect files in other threads.
    """
    return _decoding(pixels, truncated)


def is_known(head: bytes) -> bool:
    """Whether Pillow would try to read a file with these first bytes."""
    Image.init()
    accepts = (Image.OPEN[name][1] for name in READ_FORMATS if name in Image.OPEN)
    return any(accept is None or accept(head[:16]) for accept in accepts)


def _reset() -> None:
    """Replaces the lock in a forked process, where a thread that held it no longer exists."""
    global _decoding
    _decoding = _Decoding()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
