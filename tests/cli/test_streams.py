"""`espan upscale - -o -`: one picture through standard input and output."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.makers import noise


def encoded(format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(5, 6, 3)).save(file, format)
    return file.getvalue()


class Stream(io.BytesIO):
    name = "<stream>"
    terminal = False

    @property
    def buffer(self):
        return self

    def isatty(self):
        return self.terminal


@pytest.fixture
def piped(upscale, monkeypatch):
    """`upscale` with `piped.source` for standard input and `piped.target` for output."""

    def run(*arguments) -> int:
        with monkeypatch.context() as patch:  # in the test itself: pytest puts its own in between
            patch.setattr(sys, "stdin", run.source)
            patch.setattr(sys, "stdout", run.target)
            return upscale(*arguments)

    run.source, run.target = Stream(encoded("WEBP")), Stream()
    return run


@pytest.mark.parametrize(("asked", "format"), [([], "WEBP"), (["-f", "png"], "PNG")], ids=str)
def test_in_and_out(piped, asked, format):
    assert piped("-", "-o", "-", *asked) == 0
    result = Image.open(io.BytesIO(piped.target.getvalue()))
    assert (result.format, result.size) == (format, (24, 20))


def test_from_a_file_and_into_one(piped, pictures, tmp_path, capsys):
    assert piped(pictures / "a.png", "-o", "-", "--width", "30") == 0
    assert Image.open(io.BytesIO(piped.target.getvalue())).size == (30, 25)
    assert piped("-i", "-", "-o", tmp_path / "b.jpg", "-q") == 0
    assert Image.open(tmp_path / "b.jpg").size == (24, 20)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("standard output, ")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (["-"], "output: needed with standard input: a file, or - for standard output"),
        (["-", "a.png", "-o", "-"], "input: - is one picture, and there are several inputs"),
        (["a.png", "b.png", "-o", "-"], "input: - is one picture, and there are several inputs"),
        ([".", "-o", "-"], "output: - is for one picture, and . is none"),
        (["a.mp4", "-o", "-"], "output: - is for one picture, and a.mp4 is none"),
        (["-", "-o", "folder/"], "output: folder/ is a folder; name a file, or -"),
        (["-", "-o", "-", "--json"], "json: is for files, not for standard input and output"),
        (["-", "-o", "-", "--resume"], "resume: is for files"),
        (["-", "-o", "-", "--engine", "ray"], "engine: is for files"),
        (["-", "-o", "-", "-f", "gif"], "format: expected one of png, jpg,"),
        (["-", "-o", "x.jpg", "-f", "png"], "format: 'png', but x.jpg ends otherwise"),
        (["-", "-o", "x", "-f", "png"], "format: 'png', but x ends otherwise"),
        (["-", "-o", "x.gif", "-f", "gif"], "format: expected one of png, jpg,"),
        (["-", "-o", "x.jpg", "--codec", "h264"], "codec: is for videos, and no video is named"),
        (["-", "-o", "-", "--on-error", "stop"], "on_error: is for videos"),
        (["https://a.b/c.png"], "input: https://a.b/c.png is a URL; download it first"),
        (["a.png", "-o", "ftp://a.b/c.png"], "output: ftp://a.b/c.png is a URL"),
    ],
    ids=" ".join,
)
def test_what_streams_cannot_be_asked_for(piped, asked, reason, capsys):
    assert piped(*asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"espan: {reason}")
    assert piped.target.getvalue() == b""


@pytest.mark.parametrize(
    ("name", "format"), [("b.png", "png"), ("b.jpeg", "jpg"), ("b.TIF", ".TIFF")]
)
def test_a_format_that_agrees_with_the_ending(piped, tmp_path, name, format):
    assert piped("-", "-o", tmp_path / name, "-f", format) == 0
    assert Image.open(tmp_path / name).size == (24, 20)


def test_terminals_and_closed_ends(piped, capsys):
    ends = (piped.source, "input: standard input"), (piped.target, "output: standard output")
    for stream, name in ends:
        stream.terminal = True
        assert piped("-", "-o", "-") == 2
        assert f"{name} is a terminal; redirect it, or name a file" in capsys.readouterr().err
        stream.terminal = False
    piped.target = None  # as after >&-
    assert piped("-", "-o", "-") == 2
    assert "output: standard output is closed" in capsys.readouterr().err


def espan(weights: str, *arguments: str, data: bytes = b"", **how) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "espan.cli", "upscale", "--device=cpu", "-n", weights]
    return subprocess.run([*command, *arguments], input=data, capture_output=True, **how)


def test_garbage_is_one_line_and_nothing_is_written(weights, tmp_path):
    done = espan(weights, "-", "-o", "x.png", data=bytes(range(256)) * 99, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("espan: <stdin>: not an image in a known format")
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_endless_garbage_is_refused_at_once(weights, tmp_path):
    command = [sys.executable, "-m", "espan.cli", "upscale", "--device=cpu", "-n", weights]
    with Path("/dev/zero").open("rb") as endless:
        done = subprocess.run(
            [*command, "-", "-o", "x.png"], stdin=endless, capture_output=True, cwd=tmp_path
        )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("espan: <stdin>: not an image in a known format")
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_an_animation_is_to_be_named(weights, tmp_path):
    first, *others = [Image.fromarray(noise(5, 6, 3, seed=seed)) for seed in range(3)]
    path = tmp_path / "a;b.gif"
    first.save(path, save_all=True, append_images=others)
    for source, name in ((str(path), path), ("-", "<stdin>")):
        done = espan(weights, source, "-o", "-", data=path.read_bytes())
        assert done.returncode == 1 and done.stdout == b""
        said = "an animation of 3 frames; name its file, and one for the result with -o"
        assert done.stderr.decode().splitlines() == [f"espan: {name}: {said}"]


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_has_gone_is_one_line(weights):
    command = [sys.executable, "-m", "espan.cli", "upscale", "--device=cpu", "-n", weights]
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [*command, "-", "-o", "-"], input=encoded(), stdout=theirs, stderr=subprocess.PIPE
        )
    finally:
        os.close(theirs)
    assert done.returncode == 1
    assert done.stderr.decode() == "espan: <stdout>: could not be written: Broken pipe\n"
