"""Limits of animation formats: plays, times, colour profiles."""

import pytest
from PIL import Image

from espan import InputError, Limits
from espan.animation import reading, writing
from tests.animation.test_animation import WRITTEN, convert, damaged, durations, make, shape

KEEP = Limits(allow_truncated=True)


def written(path, times, plays=0):
    frames = (Image.fromarray(shape(i, False)) for i in range(len(times)))
    with path.open("wb") as file:
        writing.write(file, writing.format_of(path), frames, times, plays, None)
    return path


@pytest.mark.parametrize(
    ("target", "most"), [(".gif", 65536), (".png", 2**31 - 1), (".webp", 65535), (".avif", 0)]
)
def test_maximum_number_of_plays(tmp_path, target, most):
    path = written(tmp_path / f"a{target}", [40, 40], 2**32 - 1)
    assert reading.inspect(path, 1, Limits()).plays == most


def test_gif_with_maximum_plays_to_webp(tmp_path):
    convert(make(tmp_path / "a.gif", loop=65535), tmp_path / "b.webp")
    assert reading.inspect(tmp_path / "b.webp", 1, Limits()).plays == 65535


@pytest.mark.parametrize("target", WRITTEN)
def test_fractions_of_milliseconds_add_up(tmp_path, target):
    path = written(tmp_path / f"a{target}", [1000 / 30] * 30)
    assert sum(durations(path)) == pytest.approx(1000)


@pytest.mark.parametrize(
    ("target", "times", "shown"),
    [
        (".png", [65_535, 65_536, 40], [65_535, 65_540, 36]),
        (".png", [655_350, 3_600_000, 40], [655_350, 3_600_000, 40]),
        (".png", [99_999_000, 40], [65_535_000, 40]),
        (".gif", [700_000, 40], [655_350, 40]),
        (".webp", [20_000_000, 40], [2**24 - 1, 40]),
    ],
)
def test_long_times(tmp_path, target, times, shown):
    assert durations(written(tmp_path / f"a{target}", times)) == shown


def frame_ends(data: bytes) -> list[int]:
    """Offsets after each frame of a GIF made by `written`."""
    begins = [at for at in range(len(data)) if data[at:].startswith(b"\x21\xf9\x04")]
    return [*begins[1:], len(data) - 1]


def test_gif_without_trailer_is_valid(tmp_path, caplog):
    path = written(tmp_path / "a.gif", [40] * 3)
    path.write_bytes(path.read_bytes()[:-1])
    assert convert(path, tmp_path / "b.png").frames == 3
    assert caplog.messages == []


@pytest.mark.parametrize("cut", [-1, 1, 4, 9], ids=str)
def test_a_gif_that_ends_within_a_block(tmp_path, caplog, cut):
    path = written(tmp_path / "a.gif", [40] * 4)
    data = path.read_bytes()
    path.write_bytes(data[: frame_ends(data)[2] + cut])
    with pytest.raises(InputError, match=r"a\.gif: damaged or truncated"):
        convert(path, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
    assert convert(path, tmp_path / "b.png", limits=KEEP).frames == 3
    (line,) = caplog.messages
    assert line.startswith(f"{path}: damaged or truncated") and line.endswith("kept frames: 3")


def test_frames_before_damage_are_kept(tmp_path, caplog):
    path = damaged(make(tmp_path / "a.png", times=[40] * 9))
    frames = convert(path, tmp_path / "b.gif", limits=KEEP).frames
    assert 2 <= frames < 9 and len(durations(tmp_path / "b.gif")) == frames
    (line,) = caplog.messages
    assert line.startswith(f"{path}: damaged or truncated at frame {frames}: ")


def test_dropped_profile_is_logged(tmp_path, caplog):
    caplog.set_level("INFO", "espan")
    path = make(tmp_path / "a.png", icc_profile=b"p" * 200)
    convert(path, tmp_path / "b.webp")
    assert caplog.messages == []
    convert(path, tmp_path / "b.gif")
    (line,) = caplog.messages
    assert (
        line == f"{tmp_path / 'b.gif'}: GIF cannot hold the colour profile of {path}; it is dropped"
    )
