"""The user's options for a video. Importing this module does not need PyAV."""

import re
from dataclasses import dataclass
from math import isfinite
from numbers import Real

from espan.errors import InputError, short
from espan.system.extras import extra

ON_ERROR = ("stop", "repeat")
# Suffixes of video files. A result keeps its input's suffix if that is in WRITE_SUFFIXES; otherwise
# it gets .mkv, which holds nearly every kind of stream.
WRITE_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts", ".m2ts", ".mts", ".nut")
READ_SUFFIXES = (
    *WRITE_SUFFIXES,
    *(".avi", ".mpg", ".mpeg", ".vob", ".wmv", ".asf", ".flv", ".ogv", ".3gp", ".mxf"),
)

# Seconds, or text: seconds, m:ss or h:mm:ss, with or without a fraction.
Time = float | str
_TIME = re.compile(r"(?:(?:(\d{1,5}):)?(\d{1,5}):)?(\d{1,8}(?:\.\d{1,9})?)")


class OptionError(InputError):
    """An option whose value is wrong for every video."""


@dataclass(frozen=True)
class Options:
    """Options of the encoder, None for the default; on_error: "stop" or "repeat" at a damaged
    frame; hwaccel: hardware decoder; start, end, preview: the part that is upscaled.
    """

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    on_error: str = "stop"
    hwaccel: str | None = None
    start: Time | None = None
    end: Time | None = None
    preview: Time | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            known = ", ".join(ON_ERROR)
            raise OptionError(f"on_error: expected one of {known}, got {self.on_error!r}")
        if self.hwaccel is not None:
            _check_hwaccel(self.hwaccel)
        if self.crf is not None and not (isfinite(self.crf) and self.crf >= 0):
            raise OptionError(f"crf: expected a number of at least 0, got {self.crf}")
        self.part()

    def part(self) -> tuple[float, float | None]:
        """(start, end) in seconds; None is the end of the video. OptionError for wrong times."""
        start = 0.0 if self.start is None else seconds("start", self.start)
        if self.end is not None and self.preview is not None:
            raise OptionError("preview: cannot be used together with end")
        if self.preview is not None:
            length = seconds("preview", self.preview)
            if length == 0:
                raise OptionError("preview: expected more than 0 seconds, got 0")
            return start, start + length
        if self.end is None:
            return start, None
        end = seconds("end", self.end)
        if end <= start:
            raise OptionError(f"end: expected a time after start, {start:g} s, got {end:g} s")
        return start, end


def seconds(name: str, time: Time) -> float:
    """The time in seconds; OptionError that names the option if it is not a time."""
    if isinstance(time, str) and (found := _TIME.fullmatch(time.strip())):
        hours, minutes, rest = found.groups()
        sixty = float(rest) < 60 or minutes is None
        if sixty and (hours is None or int(minutes) < 60):
            time = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest)
    if isinstance(time, bool) or not isinstance(time, Real) or not 0 <= time < 1e8:
        raise OptionError(f"{name}: expected seconds or h:mm:ss, got {short(time)}")
    return float(time)


def need_pyav() -> None:
    """OptionError with the command to install PyAV, if it is missing."""
    extra("av", "video", "video", OptionError)


def _check_hwaccel(name: str) -> None:
    need_pyav()
    from av.codec.hwaccel import hwdevices_available

    known = hwdevices_available()
    if name not in known:
        has = ", ".join(known) or "none"
        raise OptionError(f"hwaccel: expected one that this PyAV has ({has}), got {name!r}")
