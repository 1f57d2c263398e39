"""Sizes of results on the command line: file names, and refusals."""

import pytest
from PIL import Image

from espan.images import files


@pytest.mark.parametrize(
    ("asked", "name", "size"),
    [
        (["-s", "8"], "a_x8.png", (48, 40)),
        (["--width", "50"], "a_w50.png", (50, 42)),
        (["--height", "3"], "a_h3.png", (4, 3)),
        (["--fit", "99x20"], "a_99x20.png", (24, 20)),
        (["--max-side", "13"], "a_max13.png", (13, 11)),
        (["--max-side", "99", "-s", "2"], "a_max99.png", (12, 10)),
    ],
    ids=str,
)
def test_the_command(images, upscale, asked, name, size):
    assert upscale(images / "a.png", *asked) == 0
    assert Image.open(images / name).size == size


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (["--width", "0"], "width: expected a whole number of 1 or more, got 0"),
        (["--width", "-5"], "width: expected a whole number of 1 or more, got '-5'"),
        (["--fit", "10"], "fit: expected WIDTHxHEIGHT, as 1920x1080, got '10'"),
        (["--fit", "0x5"], "fit: expected (width, height), got (0, 5)"),
        (["--max-side", "many"], "max_side: expected a whole number of 1 or more, got 'many'"),
        (["--width", "9", "--height", "9"], "size: expected one of"),
        (["--width", "9", "-s", "2"], "scale: cannot be given with width, which determines it"),
        (["-s", "65"], "scale: expected 1 to 64, got 65"),
    ],
    ids=str,
)
def test_sizes_that_the_command_refuses(images, upscale, asked, reason, capsys):
    before = sorted(images.rglob("*"))
    assert upscale(images, *asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"espan: {reason}")
    assert sorted(images.rglob("*")) == before


def test_a_large_image_x64_is_a_one_line_error_and_nothing_is_written(tmp_path, upscale, capsys):
    files.write(tmp_path / "a.png", Image.new("L", (700, 600)))
    before = sorted(tmp_path.rglob("*"))
    assert upscale(tmp_path / "a.png", "-s", "64") == 1
    first, *rest = capsys.readouterr().err.splitlines()
    assert "700 x 600 pixels x64 are over the output limit of 1,500,000,000" in first
    assert rest == ["espan: --max-output-pixels N raises the limit"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("option", ["--width", "--height", "--fit", "--max-side"])
def test_an_empty_size_is_refused(images, upscale, option):
    before = sorted(images.iterdir())
    assert upscale(images / "a.png", option, "") == 2
    assert sorted(images.iterdir()) == before
