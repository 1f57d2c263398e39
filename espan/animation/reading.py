"""Animations in: every frame as it is shown, and for how long."""

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from espan.errors import EspanError, InputError
from espan.images import files
from espan.images.files.metadata import DECODE_ERRORS
from espan.images.files.pillow import decoding
from espan.options import LIMITS, Limits
from espan.sizes import Size
from espan.system.paths import why_no_file

FORMATS = ("GIF", "PNG", "WEBP", "AVIF")


@dataclass(frozen=True)
class Animation:
    """What is known of an animation once all its frames were decoded.

    first: the frame it begins with: a PNG may have a picture before it for programs that show no
    animations. durations: in milliseconds. plays: how often, 0 for ever. mode: of its frames,
    "RGBA" if any is transparent anywhere, else "RGB".
    """

    path: Path
    size: tuple[int, int]
    first: int
    durations: tuple[float, ...]
    plays: int
    mode: str
    icc_profile: bytes | None


def is_animated(path: Path) -> bool:
    """Whether a file has several frames that follow each other; False for what cannot be read."""
    if why_no_file(path):  # a FIFO would be waited for
        return False
    with (
        suppress(*DECODE_ERRORS),
        decoding(LIMITS.max_input),
        Image.open(path, formats=FORMATS) as image,
    ):
        return getattr(image, "n_frames", 1) > 1
    return False


def look(path: Path, scale: float | Size, limits: Limits) -> Animation:
    """The Animation in a file, decoded once from end to end: damage is found before the work.

    InputError naming the file and the frame; LimitError for frames that are too large.
    """
    durations, mode, frame = [], "RGB", 0
    with decoding(limits.max_input), files.naming(path):
        if problem := why_no_file(path):
            raise InputError(problem)
        try:
            with Image.open(path, formats=FORMATS) as image:
                if image.format == "GIF":
                    _check_end(path)
                files.check_size(image.size, scale, limits)
                first = int(bool(image.info.get("default_image")))
                for frame in range(first, image.n_frames):
                    image.seek(frame)
                    image.load()
                    durations.append(float(image.info.get("duration") or 0))
                    if mode == "RGB" and image.has_transparency_data and _shows_through(image):
                        mode = "RGBA"
                profile = image.info.get("icc_profile")
                plays = _plays(image)
                size = image.size
        except DECODE_ERRORS as error:
            if isinstance(error, EspanError) or not frame:
                raise
            said = " ".join(str(error).split())
            raise InputError(f"damaged or truncated at frame {frame}: {said}") from error
    return Animation(path, size, first, tuple(durations), plays, mode, profile)


def frames(animation: Animation) -> Generator[Image.Image]:
    """The frames as they are shown, whole, in the animation's mode."""
    path = animation.path
    with files.naming(path), Image.open(path, formats=FORMATS) as image:
        for number in range(len(animation.durations)):
            with decoding(animation.size[0] * animation.size[1]):
                image.seek(animation.first + number)
                frame = image.convert(animation.mode)
            frame.info = {}
            yield frame


def _check_end(path: Path) -> None:
    """InputError for a GIF whose blocks end before its end: Pillow takes the frames there are."""
    data, at, count = path.read_bytes(), 13, 0
    if data[10] & 0x80:
        at += 3 << (data[10] & 7) + 1
    try:
        while data[at] != ord(";"):
            if data[at] == ord(","):
                count += 1
                table = data[at + 9]
                at += 11 + (3 << (table & 7) + 1 if table & 0x80 else 0)
            else:
                at += 2
            while data[at]:  # blocks that each begin with their length
                at += data[at] + 1
            at += 1
    except IndexError:
        raise InputError(f"damaged or truncated: it ends within frame {count}") from None


def _shows_through(image: Image.Image) -> bool:
    return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())


def _plays(image: Image.Image) -> int:
    """A GIF counts what comes after the first time, and without a count plays once."""
    loop = image.info.get("loop")
    if image.format == "GIF":
        return 1 if loop is None else loop and loop + 1
    return loop or 0
