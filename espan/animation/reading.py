"""Animations in: every frame as it is shown, and for how long."""

import logging
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
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

log = logging.getLogger("espan")

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
        return getattr(image, "is_animated", False)
    return False


def look(path: Path, scale: float | Size, limits: Limits) -> Animation:
    """The Animation in a file, decoded once from end to end: damage is found before the work.

    InputError naming the file and the frame; LimitError for frames that are too large. Where
    `limits` allow damage, the frames before it are kept, and the log has it.
    """
    durations, mode = [], "RGB"
    with decoding(limits.max_input), files.naming(path):
        if problem := why_no_file(path):
            raise InputError(problem)
        with Image.open(path, formats=FORMATS) as image:
            files.check_size(image.size, scale, limits)
            first = int(bool(image.info.get("default_image")))
            try:
                for frame in _decoded(image, first):
                    durations.append(float(frame.info.get("duration") or 0))
                    if mode == "RGB" and frame.has_transparency_data and _shows_through(frame):
                        mode = "RGBA"
                if image.format == "GIF":
                    _check_end(path)
            except InputError as damage:
                if not limits.allow_truncated or not durations:
                    raise
                log.warning("%s: %s; kept frames: %d", path, damage, len(durations))
            profile, plays = image.info.get("icc_profile"), _plays(image)
            return Animation(path, image.size, first, tuple(durations), plays, mode, profile)


def _decoded(image: Image.Image, first: int) -> Generator[Image.Image]:
    """The image at each of its frames; InputError for damage after the first."""
    # A GIF has no count of its frames, and Pillow cannot count those of one that is cut.
    endless = image.format == "GIF"
    frame = 0
    try:
        for frame in count() if endless else range(first, getattr(image, "n_frames", 1)):
            try:
                image.seek(frame)
            except EOFError:
                if endless:
                    return
                raise
            image.load()
            yield image
    except DECODE_ERRORS as error:
        if isinstance(error, EspanError) or not frame:
            raise
        said = " ".join(str(error).split())
        raise InputError(f"damaged or truncated at frame {frame}: {said}") from error


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
    """InputError for a GIF that ends within a block: Pillow takes the frames there are."""
    data, at, frame = path.read_bytes(), 13, 0
    if data[10] & 0x80:
        at += 3 << (data[10] & 7) + 1
    try:
        while at != len(data) and data[at] != ord(";"):  # some programs write no end
            if data[at] == ord(","):
                frame += 1
                table = data[at + 9]
                at += 11 + (3 << (table & 7) + 1 if table & 0x80 else 0)
            else:
                at += 2
            while data[at]:  # blocks that each begin with their length
                at += data[at] + 1
            at += 1
    except IndexError:
        raise InputError(f"damaged or truncated: it ends within frame {frame}") from None


def _shows_through(image: Image.Image) -> bool:
    return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())


def _plays(image: Image.Image) -> int:
    """A GIF counts what comes after the first time, and without a count plays once."""
    loop = image.info.get("loop")
    if image.format == "GIF":
        return 1 if loop is None else loop and loop + 1
    return loop or 0
