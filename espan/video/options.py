"""What the user may set about a video. Importing it does not need PyAV."""

from dataclasses import dataclass

from espan.errors import InputError

ON_ERROR = ("stop", "repeat")


class OptionError(InputError):
    """A setting that would be wrong for any video."""


@dataclass(frozen=True)
class Options:
    """How a video is encoded, None chooses; on_error: what a damaged frame does."""

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    on_error: str = "stop"

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            known = ", ".join(ON_ERROR)
            raise OptionError(f"on_error: expected one of {known}, got {self.on_error!r}")


def need_pyav() -> None:
    """OptionError, with what to install, where PyAV is not."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise OptionError("video needs PyAV: pip install 'espan[video]'") from error
