"""Parts of frames are coded in parallel and in order; other programs read the results."""

import io
import struct
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from espan import OutputError
from espan.animation import webp, writing
from espan.animation.parts import coded_parts
from espan.execution.frames import workers_on_a_cpu
from tests.animation.test_animation import shape, shown

SQUARE = (5, 7, 13, 15)  # what changes from one frame to the next


def frames(mode: str, size=(37, 29)) -> list[Image.Image]:
    """A photograph, one with another square, an equal one, and one that is all different."""
    with Image.open(Path(__file__).parents[2] / "docs/images/kitten.png") as image:
        first = image.convert("RGB").resize(size)
    if mode == "RGBA":
        first.putalpha(first.getchannel("G"))
    second = first.copy()
    second.paste((200, 30, 60, 0)[: len(mode)], SQUARE)
    last = first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return [first, second, second.copy(), last]


def written(path, images) -> Path:
    with path.open("wb") as file:
        times = [40 + 10 * i for i in range(len(images))]
        writing.write(file, writing.format_of(path), iter(images), times, 3, None)
    return path


def rgba(images) -> list[np.ndarray]:
    return [np.asarray(image.convert("RGBA")).astype(int) for image in images]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_png_keeps_every_pixel(tmp_path, mode):
    made = frames(mode)
    for got, image in zip(shown(written(tmp_path / "a.png", made)), rgba(made), strict=True):
        assert (got == image).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_is_near_and_keeps_alpha(tmp_path, mode):
    made = frames(mode)
    got = shown(written(tmp_path / "a.webp", made))
    for here, image in zip(got, rgba(made), strict=True):
        assert (here[..., 3] == image[..., 3]).all()
        seen = image[..., 3] > 0
        assert np.abs(here - image)[seen].mean() < 6
    changed = np.flatnonzero((got[1] != got[0]).any((1, 2)))
    assert changed[0] >= 6 and changed[-1] < SQUARE[3]  # positions in a WebP are even
    assert len(np.unique(np.argwhere(got[2] != got[1])[:, :2], axis=0)) <= 1


@pytest.mark.parametrize("size", [(37, 29), (400, 300)])
def test_gif_is_near(tmp_path, size):
    """Each pixel gets the nearest colour of a palette, also of one from a part of the pixels."""
    made = frames("RGB", size)
    for got, image in zip(shown(written(tmp_path / "a.gif", made)), rgba(made), strict=True):
        assert 10 * np.log10(255**2 / ((got - image) ** 2).mean()) > 34


def test_gif_clears_transparent_frames(tmp_path):
    made = frames("RGBA")
    for got, image in zip(shown(written(tmp_path / "a.gif", made)), rgba(made), strict=True):
        assert (got[..., 3] == np.where(image[..., 3] < 128, 0, 255)).all()


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_ffmpeg_shows_the_same(tmp_path, suffix):
    av = pytest.importorskip("av")
    path = written(tmp_path / f"a{suffix}", frames("RGB"))
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode()]
    for got, expected in zip(decoded, shown(path), strict=True):
        assert (got == expected[..., :3]).all()


def test_webp_is_made_of_the_right_chunks(tmp_path):
    with (tmp_path / "a.webp").open("wb") as file:
        writing.write(file, "WEBP", iter(frames("RGBA")), [40] * 4, 3, b"odd")
    data = (tmp_path / "a.webp").read_bytes()
    assert data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    assert struct.unpack_from("<I", data, 4) == (len(data) - 8,)
    kinds, at = [], 12
    while at < len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        kinds.append(kind)
        at += 8 + length + length % 2
    assert at == len(data)
    assert kinds == [b"VP8X", b"ICCP", b"ANIM", *[b"ANMF"] * 4]


def test_a_webp_that_grows_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(webp, "MOST", 100)
    with pytest.raises(OutputError, match="WebP holds at most 4 GB; choose png"):
        writing.write(io.BytesIO(), "WEBP", iter(frames("RGB")), [40] * 4, 0, None)


def test_parts_are_coded_in_parallel_and_in_order():
    together = threading.Barrier(workers_on_a_cpu())

    def code(image: Image.Image) -> bytes:
        together.wait(60)  # blocks until the expected number of parts are coded in parallel
        return image.tobytes()

    count = 3 * together.parties
    images = [Image.fromarray(shape(i, False)) for i in range(count)]
    whole = images[0].copy()
    for (before, image), (part, coded) in zip(
        pairwise([None, *images]), coded_parts(iter(images), code), strict=True
    ):
        assert coded == part.image.tobytes()
        assert before is None or part.image.size < image.size
        whole.paste(part.image, (part.left, part.top))
        assert whole.tobytes() == image.tobytes()


def test_few_frames_are_taken_ahead():
    """Of a long animation only a few frames and parts are in memory."""
    taken = []

    def many():
        for i in range(40):
            taken.append(i)
            yield Image.fromarray(shape(i, False))

    coded = 0
    for _ in coded_parts(many(), Image.Image.tobytes):
        coded += 1
        assert len(taken) - coded <= workers_on_a_cpu() + 1
    assert coded == 40


def test_an_error_of_a_frame_ends_the_coding():
    def broken():
        yield Image.fromarray(shape(0, False))
        raise OutputError("no more")

    before = threading.active_count()
    with pytest.raises(OutputError, match="no more"):
        writing.write(io.BytesIO(), "PNG", broken(), [40] * 4, 0, None)
    assert threading.active_count() == before
