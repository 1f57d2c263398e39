"""What formats of animations cannot hold: plays, times, colour profiles."""

import pytest
from PIL import Image

from espan import Limits
from espan.animation import reading, writing
from tests.animation.test_animation import WRITTEN, convert, durations, make, shape


def written(path, times, plays=0):
    frames = (Image.fromarray(shape(i, False)) for i in range(len(times)))
    with path.open("wb") as file:
        writing.write(file, writing.format_of(path), frames, times, plays, None)
    return path


@pytest.mark.parametrize(
    ("target", "most"), [(".gif", 65536), (".png", 2**31 - 1), (".webp", 65535), (".avif", 0)]
)
def test_the_most_plays(tmp_path, target, most):
    path = written(tmp_path / f"a{target}", [40, 40], 2**32 - 1)
    assert reading.look(path, 1, Limits()).plays == most


def test_a_gif_of_the_most_plays_becomes_a_webp(tmp_path):
    convert(make(tmp_path / "a.gif", loop=65535), tmp_path / "b.webp")
    assert reading.look(tmp_path / "b.webp", 1, Limits()).plays == 65535


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
