"""Small test videos: frames that encode their number, a sine, subtitles, chapters."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from espan.video.colour import FULL, LIMITED, Colour, Pixels

TAGGED = Colour(1, 1, 1, LIMITED)


def image(number: int, height: int = 24, width: int = 32, deep: bool = False) -> np.ndarray:
    """An RGB frame that depends on the frame number."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + number / 3), np.cos(y / 4), np.sin((x + y) / 7 - number / 5)]
    pixels = 0.5 + 0.35 * np.stack(waves, 2)
    return np.round(pixels * 65535).astype(np.uint16) if deep else np.uint8(np.round(pixels * 255))


def make(
    path: Path,
    frames: int = 10,
    size: tuple[int, int] = (32, 24),
    *,
    codec: str = "libx264",
    format: str = "yuv420p",
    rate: int = 25,
    times: list[int] | None = None,
    time_base: Fraction | None = None,
    colour: Colour | None = TAGGED,
    sar: Fraction = Fraction(1),
    turned: int = 0,
    sound: bool = False,
    subtitles: bool = False,
    attachment: bool = False,
    chapters: bool = False,
    options: dict | None = None,
) -> Path:
    """Writes a clip; `times` are frame times in `time_base`; colour=None leaves it untagged."""
    width, height = size
    used = colour or Colour(2, 2, 6, LIMITED)
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = width, height, format
        context = video.codec_context
        context.time_base = time_base or Fraction(1, rate)
        context.sample_aspect_ratio, context.options = sar, options or {}
        if colour:
            context.color_primaries, context.color_trc = colour.primaries, colour.transfer
            context.colorspace, context.color_range = colour.matrix, colour.range
        video.metadata["title"] = "the image"
        if turned:
            video.set_display_rotation(turned)
        audio = out.add_stream("aac", rate=44100) if sound else None
        if audio:
            audio.metadata["language"] = "deu"
        words = out.add_mux_stream("subrip") if subtitles else None
        if words:
            words.metadata["language"] = "fra"
            words.time_base = Fraction(1, 1000)
        if attachment:
            out.add_attachment("font.ttf", "application/x-truetype-font", b"letters")
        if chapters:
            out.set_chapters(
                [
                    {
                        "id": i,
                        "start": 200 * i,
                        "end": 200 * i + 200,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": f"part {i}"},
                    }
                    for i in range(2)
                ]
            )
        out.metadata["title"] = "a clip"
        pixels, kind = Pixels(used), av.VideoFormat(format)
        deep = kind.components[0].bits > 8
        for i in range(frames):
            frame = pixels.frame(image(i, height, width, deep), kind)
            if colour is None:
                frame.colorspace, frame.color_range = 2, 0
            frame.pts = i if times is None else times[i]
            frame.time_base = context.time_base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio:
            _sine(out, audio, frames / rate)
        if words:
            for i in range(2):
                line = av.Packet(f"line {i}".encode())
                line.pts = line.dts = 100 * i
                line.duration, line.time_base, line.stream = 90, Fraction(1, 1000), words
                out.mux(line)
    return path


def _sine(out, audio, seconds: float) -> None:
    t = np.arange(int(44100 * seconds)) / 44100
    wave = (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    for start in range(0, len(wave), 1024):
        part = np.stack([wave[start : start + 1024]] * 2)
        frame = av.AudioFrame.from_ndarray(part, "fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44100, start
        out.mux(audio.encode(frame))
    out.mux(audio.encode(None))


def frames(path: Path) -> list:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times(path: Path) -> list[Fraction]:
    return [frame.pts * Fraction(frame.time_base) for frame in frames(path)]


def packets(path: Path, kind: str) -> list[tuple]:
    """(seconds, bytes) of every packet of the first stream of that kind."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [
            (each.pts * Fraction(each.time_base), bytes(each))
            for each in container.demux(stream)
            if each.pts is not None
        ]


__all__ = ["FULL", "LIMITED", "TAGGED", "Colour", "frames", "image", "make", "packets", "times"]
