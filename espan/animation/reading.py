"""Reads animations: every frame as shown, and its duration."""

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
    """Properties of an animation, known after decoding all frames.

    first: index of the first frame: a PNG may begin with an image for programs without animations.
    durations: in milliseconds. plays: 0 means forever. mode: "RGBA" if any frame has transparent
    pixels, else "RGB".
    """

    path: Path
    size: tuple[int, int]
    first: int
    durations: tuple[float, ...]
    plays: int
    mode: str
    icc_profile: bytes | None


def is_animated(path: Path) -> bool:
    """Whether a file is an animation; False for files that cannot be read."""
    if why_no_file(path):  # opening a FIFO would block
        return False
    with (
        suppress(*DECODE_ERRORS),
        decoding(LIMITS.max_input),
        Image.open(path, formats=FORMATS) as image,
    ):
        return getattr(image, "is_animated", False)
    return False


def inspect(path: Path, scale: float | Size, limits: Limits) -> Animation:
    """Decodes all frames of an animation once, to find damage before upscaling.

    Raises InputError naming the file and the frame; LimitError for frames that are too large. If
    `limits` allow damage, keeps the frames before it and logs a warning.
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
    """Yields the image at each frame; raises InputError for damage after the first."""
    # A GIF does not store its frame count, and Pillow cannot count the frames of a truncated one.
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
        reason = " ".join(str(error).split())
        raise InputError(f"damaged or truncated at frame {frame}: {reason}") from error


def frames(animation: Animation) -> Generator[Image.Image]:
    """Yields the full frames as shown, in the animation's mode."""
    path = animation.path
    with files.naming(path), Image.open(path, formats=FORMATS) as image:
        for number in range(len(animation.durations)):
            with decoding(animation.size[0] * animation.size[1]):
                image.seek(animation.first + number)
                frame = image.convert(animation.mode)
            frame.info = {}
            yield frame


def _check_end(path: Path) -> None:
    """Raises InputError for a GIF that ends within a block, which Pillow accepts."""
    data, at, frame = path.read_bytes(), 13, 0
    if data[10] & 0x80:
        at += 3 << (data[10] & 7) + 1
    try:
        while at != len(data) and data[at] != ord(";"):  # some programs omit the trailer
            if data[at] == ord(","):
                frame += 1
                table = data[at + 9]
                at += 11 + (3 << (table & 7) + 1 if table & 0x80 else 0)
            else:
                at += 2
            while data[at]:  # sub-blocks with length prefixes
                at += data[at] + 1
            at += 1
    except IndexError:
        raise InputError(f"damaged or truncated: it ends within frame {frame}") from None


def _shows_through(image: Image.Image) -> bool:
    return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())


def _plays(image: Image.Image) -> int:
    """The number of plays. A GIF stores repetitions after the first play, or nothing for one."""
    loop = image.info.get("loop")
    if image.format == "GIF":
        return 1 if loop is None else loop and loop + 1
    return loop or 0
