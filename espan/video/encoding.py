"""Chooses and runs the encoder: the user's options, else defaults for the container and input."""

import logging
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.codec import UnknownCodecError, find_best_pix_fmt_of_list
from av.error import FFmpegError

from espan.errors import OutputError
from espan.sizes import Size, result_size
from espan.video import scheduling
from espan.video.colour import Colour, Pixels, depth
from espan.video.options import OptionError, Options
from espan.video.packed import Packed
from espan.video.segments import Coded
from espan.video.source import Clip, reason

log = logging.getLogger("espan")

# Common names of codecs, and FFmpeg's encoders for them.
_ALIASES = {
    "h264": "libx264",
    "x264": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "x265": "libx265",
    "av1": "libsvtav1",
    "svtav1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
}
# Per encoder, the option for constant quality and its default: visually close to the input.
_QUALITY = {
    "libx264": ("crf", 17),
    "libx264rgb": ("crf", 17),
    "libx265": ("crf", 18),
    "libsvtav1": ("crf", 20),
    "libvpx-vp9": ("crf", 20),
    "h264_nvenc": ("cq", 19),
    "hevc_nvenc": ("cq", 21),
    "av1_nvenc": ("cq", 25),
    "mpeg4": ("qmin", 2),
}
# Libraries that log to stderr themselves: errors only. SVT-AV1 reads an environment variable.
_QUIET = {"libx265": {"x265-params": "log-level=error"}}
os.environ.setdefault("SVT_LOG", "1")
# Encoders for videos of more than 8 bits or in HDR, in order of preference: few devices play those
# as H.264.
_DEEP = ("libx265", "libsvtav1")
_HDR = (16, 18)  # PQ and HLG, as H.273 numbers transfers
# Encoders that messages and documents list; --codec takes any other encoder of FFmpeg too.
ENCODERS = (*_QUALITY, "prores_ks", "ffv1", "utvideo", "dnxhd", "png")
_PRESETS = {
    "libx264": "veryfast",
    "libx265": "veryfast",
    "libsvtav1": "8",
}


@dataclass(frozen=True)
class Encoding:
    """An encoder with its settings; `colour` is the tags of its frames."""

    codec: str
    format: str
    width: int
    height: int
    sar: Fraction
    rate: Fraction
    time_base: Fraction
    colour: Colour
    options: Mapping[str, str] = field(default_factory=dict)

    def set(self, context, flags: int = 0) -> None:
        """Sets all settings and `flags` on an encoder's context that is not open yet."""
        context.width, context.height = self.width, self.height
        context.pix_fmt, context.sample_aspect_ratio = self.format, self.sar
        context.framerate, context.time_base = self.rate, self.time_base
        context.color_primaries = self.colour.primaries
        context.color_trc = self.colour.transfer
        context.colorspace, context.color_range = self.colour.matrix, self.colour.range
        context.flags |= flags
        context.options = {**_QUIET.get(self.codec, {}), **self.options}

    def open(self, flags: int) -> "av.VideoCodecContext":
        """The opened encoder; OutputError for settings that it refuses."""
        context: Any = av.CodecContext.create(self.codec, "w")
        self.set(context, flags)
        try:
            with scheduling.preserved():
                context.open()
        except (FFmpegError, ValueError) as error:
            what = f"{self.codec} refuses {self.width} x {self.height} pixels in {self.format}"
            given = "".join(f", {name} {value}" for name, value in self.options.items())
            raise OutputError(f"{what}{given}: {reason(error)}") from error
        return context


def choose(container, clip: Clip, scale: float | Size, options: Options) -> Encoding:
    """The Encoding of a clip upscaled by `scale`, in an output container.

    Default codec: H.264, or H.265 or AV1 for more than 8 bits and HDR, if the container supports
    it, else the container's default. Default pix_fmt: the input's, or the nearest that the encoder
    has, with a warning if that has fewer bits. OptionError for unknown names.
    """
    encoder = _encoder(options.codec or _default_codec(container, clip))
    format = _format(encoder, clip, options.pix_fmt)
    if options.pix_fmt is None:
        _warn_of_loss(encoder, format, clip)
    width, height = (
        -(-side // step) * step
        for side, step in zip(
            result_size(scale, (clip.width, clip.height)), _steps(format), strict=True
        )
    )
    settings = _quality(encoder.name, options.crf)
    preset = options.preset or _PRESETS.get(encoder.name)
    if preset:
        settings["preset"] = preset
    _check_settings(encoder, settings)
    encoding = Encoding(
        codec=encoder.name,
        format=format.name,
        width=width,
        height=height,
        sar=clip.sar,
        rate=clip.rate,
        time_base=clip.time_base,
        colour=clip.colour.written_as(format, clip.height),
        options=settings,
    )
    try:
        encoding.open(flags=0)  # refused settings must fail before the work, not after it
    except OutputError as error:
        if options.preset is None and options.crf is None:
            raise
        replace(encoding, options=_quality(encoder.name, None)).open(flags=0)
        raise OptionError(str(error)) from error  # opens without crf and preset, so they are wrong
    return encoding


def _default_codec(container, clip: Clip) -> str:
    """The preferred encoder for the clip that is available and that the container supports."""
    deep = depth(av.VideoFormat(clip.format)) > 8 or clip.colour.transfer in _HDR
    for codec in (*(_DEEP if deep else ()), "libx264"):
        if codec in av.codecs_available:
            with suppress(ValueError):
                container.add_stream(codec)
                return codec
    return container.default_video_codec


def _warn_of_loss(encoder, format: "av.VideoFormat", clip: Clip) -> None:
    """Warns if the encoder has fewer bits than the input, and names an encoder that has enough."""
    bits, left = depth(av.VideoFormat(clip.format)), depth(format)
    if left >= bits:
        return
    able = [
        name
        for name in (*_DEEP, "ffv1")
        if name in av.codecs_available
        and any(
            depth(each) >= bits
            for each in av.Codec(name, "w").video_formats or ()
            if not _on_device(each)
        )
    ]
    keep = f"; --codec {able[0]} into .mkv keeps them" if able else ""
    message = "%s: reduced from %d to %d bits per channel, the most that %s supports%s"
    log.warning(message, clip.path, bits, left, encoder.name, keep)


def _encoder(name: str) -> "av.Codec":
    try:
        encoder = av.Codec(_ALIASES.get(name.lower(), name), "w")
    except UnknownCodecError:
        encoder = None
    if encoder is None or encoder.type != "video":
        known = ", ".join(each for each in ENCODERS if each in av.codecs_available)
        raise OptionError(f"codec: expected a video encoder ({known}, ...), got {name!r}")
    return encoder


def _format(encoder, clip: Clip, asked: str | None) -> "av.VideoFormat":
    able = [each.name for each in encoder.video_formats or () if not _on_device(each)]
    plain = clip.format.replace("yuvj", "yuv")
    if asked is None:
        best, _ = find_best_pix_fmt_of_list(able, plain)
        name = plain if plain in able or best is None else best.name
    elif asked in able:
        name = asked
    else:
        raise OptionError(
            f"pix_fmt: {encoder.name} does not support {asked!r}; it supports {', '.join(able)}"
        )
    return av.VideoFormat(name)


def _on_device(format) -> bool:
    """Whether frames lie on a GPU; also true of yuvj formats, as the range tag replaces them."""
    return not format.components or format.name.startswith("yuvj")


def _steps(format) -> tuple[int, int]:
    """The numbers that the width and the height must be multiples of."""
    return 16 // format.chroma_width(16), 16 // format.chroma_height(16)


def _quality(codec: str, crf: float | None) -> dict[str, str]:
    if codec not in _QUALITY:
        if crf is not None:
            raise OptionError(
                f"crf: {codec} has no constant quality; supported by {', '.join(_QUALITY)}"
            )
        return {}
    option, usual = _QUALITY[codec]
    value = usual if crf is None else crf
    if option == "qmin":  # one quantizer for all frames; FFmpeg's qscale has no effect here
        return dict.fromkeys(("qmin", "qmax"), str(min(max(round(value), 1), 31)))
    options = {option: f"{value:g}"}
    if option == "cq":
        options["rc"] = "vbr"
    return options


def _check_settings(encoder, settings: Mapping[str, str]) -> None:
    """OptionError for a setting that the encoder does not have: FFmpeg would ignore it silently."""
    known = av.CodecContext.create(encoder.name, "w").supported_options
    names = {each.name for each in (*known.generic, *known.private)}
    for name in settings:
        if name not in names:
            raise OptionError(f"{name}: {encoder.name} has no such setting")


def converted(images: Generator[tuple], encoding: Encoding) -> Generator[tuple]:
    """(duration, PyAV's frame in the encoder's format) of (frame, image) pairs."""
    pixels, format = Pixels(encoding.colour), av.VideoFormat(encoding.format)
    with closing(images):
        for frame, image in images:
            if isinstance(image, Packed):
                new = pixels.tagged(image.frame())
            else:
                new = pixels.frame(_padded(image, encoding.width, encoding.height), format)
            new.pts, new.time_base = frame.pts, encoding.time_base
            yield frame.duration, new


def encoded(frames: Iterable[tuple], encoding: Encoding, flags: int) -> Iterator[Coded]:
    """Encodes the frames of `converted` with a new encoder; yields them in decoding order."""
    encoder = encoding.open(flags)
    durations: dict[int, int] = {}

    def through(frame) -> Iterator[Coded]:
        try:
            packets = encoder.encode(frame)
        except FFmpegError as error:
            raise OutputError(f"{encoding.codec} failed: {reason(error)}") from error
        for packet in packets:
            assert packet.pts is not None  # each frame has one
            duration = durations.pop(packet.pts)
            yield Coded(packet.pts, duration, packet.is_keyframe, bytes(packet))

    for duration, frame in frames:
        durations[frame.pts] = duration
        yield from through(frame)
    yield from through(None)
    if durations:
        raise OutputError(f"{encoding.codec} lost {len(durations)} frames")


def _padded(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image with its last column and row repeated up to that size."""
    more = (0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)
    return np.pad(image, more, mode="edge") if any(map(any, more)) else image
