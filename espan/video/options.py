"""What the user may set about a video. Importing it does not need PyAV."""

from dataclasses import dataclass
from math import isfinite

from espan.errors import InputError
from espan.system.extras import extra

ON_ERROR = ("stop", "repeat")
# How the names of video files end. A result keeps its input's ending if that is one of the first;
# else it is .mkv, which holds every stream there is.
WRITE_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts", ".m2ts", ".mts", ".nut")
READ_SUFFIXES = (
    *WRITE_SUFFIXES,
    *(".avi", ".mpg", ".mpeg", ".vob", ".wmv", ".asf", ".flv", ".ogv", ".3gp", ".mxf"),
)


class OptionError(InputError):
    """A setting that would be wrong for any video."""


@dataclass(frozen=True)
class Options:
    """How a video is encoded, None chooses; on_error: what a damaged frame does; hwaccel: what
    decodes instead of the CPU."""

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    on_error: str = "stop"
    hwaccel: str | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            known = ", ".join(ON_ERROR)
            raise OptionError(f"on_error: expected one of {known}, got {self.on_error!r}")
        if self.hwaccel is not None:
            _check_hwaccel(self.hwaccel)
        if self.crf is not None and not (isfinite(self.crf) and self.crf >= 0):
            raise OptionError(f"crf: expected a number from 0, got {self.crf}")


def need_pyav() -> None:
    """OptionError, with what to install, where PyAV is not."""
    extra("av", "video", "video", OptionError)


def _check_hwaccel(name: str) -> None:
    need_pyav()
    from av.codec.hwaccel import hwdevices_available

    known = hwdevices_available()
    if name not in known:
        has = ", ".join(known) or "none"
        raise OptionError(f"hwaccel: this PyAV has no {name!r}; it has {has}")
