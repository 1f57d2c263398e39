"""Writes animations frame by frame, in the format of the output's suffix."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from PIL import Image

from espan.animation import apng, gif, webp
from espan.errors import OutputError
from espan.images.files.writing import SAVE

# Suffixes of animations that are written, and their formats.
SUFFIXES = {".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".avif": "AVIF"}

# Maximum number of plays per format; AVIF always repeats forever.
_PLAYS = {"GIF": 65536, "PNG": 2**31 - 1, "WEBP": 65535, "AVIF": 0}
# The largest count of a frame's time, and the parts of a second that it counts.
_TIMES: dict[str, tuple[int, tuple[int, ...]]] = {
    "GIF": (65535, (100,)),
    "PNG": (65535, (1000, 100, 1)),
    "WEBP": (2**24 - 1, (1000,)),
    "AVIF": (2**24 - 1, (1000,)),
}


def format_of(path: Path) -> str:
    """The format of a path by its suffix; raises OutputError if it does not support animations."""
    name = SUFFIXES.get(path.suffix.lower())
    if name is None:
        known = ", ".join(SUFFIXES)
        kind = path.suffix or "a file without extension"
        raise OutputError(f"{path}: {kind} cannot hold an animation (known: {known})")
    return name


def write(
    file: IO[bytes],
    format: str,
    frames: Iterator[Image.Image],
    durations: Sequence[float],
    plays: int,
    icc_profile: bytes | None,
) -> None:
    """Writes frames of equal size and mode as they arrive. durations: in milliseconds."""
    plays = min(plays, _PLAYS[format])
    delays = list(_delays(durations, *_TIMES[format]))
    counts = [count for count, _ in delays]
    if format == "GIF":
        gif.write(file, frames, counts, plays)
    elif format == "PNG":
        apng.write(file, frames, delays, plays, icc_profile)
    elif format == "WEBP":
        webp.write(file, frames, counts, plays, icc_profile)
    else:
        options: dict[str, Any] = {**SAVE[format], "duration": counts, "loop": plays}
        if icc_profile:
            options["icc_profile"] = icc_profile
        _Sequence(frames, len(counts)).save(file, format, save_all=True, **options)


def _delays(
    durations: Sequence[float], most: int, parts: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Converts milliseconds to (count, n), a duration of count / n seconds, count at most `most`.

    n is the first of `parts` for which count is small enough; with the last one, count is clipped.
    Carries rounding errors to the next frame.
    """
    left = 0.0
    for duration in durations:
        left = min(left + duration, 1000 * most / parts[-1])
        part = next(each for each in parts if round(left * each / 1000) <= most)
        count = max(round(left * part / 1000), 0)
        left -= 1000 * count / part
        yield count, part


class _Sequence(Image.Image):
    """A Pillow image that passes frames to Pillow's encoders one at a time."""

    def __init__(self, frames: Iterator[Image.Image], count: int):
        super().__init__()
        self.frames, self.n_frames, self.at = frames, count, -1
        self.is_animated = count > 1
        self.seek(0)

    def seek(self, frame: int) -> None:
        if frame >= self.n_frames:
            raise EOFError
        if frame == self.at + 1:  # otherwise Pillow returns to its position before saving
            shown, self.at = next(self.frames), frame
            self.im, self._mode, self._size = shown.im, shown.mode, shown.size

    def tell(self) -> int:
        return self.at
