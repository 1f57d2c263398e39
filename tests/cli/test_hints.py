"""The hint at the networks for images from the web, and the estimated quality of a JPEG."""

import io
import os
import subprocess
import sys

import pytest
from PIL import Image

from espan.checkpoints.weights import BUILTIN
from espan.cli import main
from espan.images import files
from tests.support.makers import noise


def jpeg(path, quality: int, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(8, 9, 3)).save(path, "JPEG", quality=quality, **options)
    return path


@pytest.mark.parametrize("quality", [20, 30, 49, 50, 51, 75, 84, 85, 95])
def test_quality_equals_the_setting_of_the_encoder(tmp_path, quality):
    for name, options in (("colour", {}), ("progressive", {"progressive": True})):
        path = jpeg(tmp_path / f"{name}.jpg", quality, **options)
        assert files.jpeg_quality(path) == quality
    assert (files.jpeg_quality(path) < 85) == (quality < 85)
    Image.fromarray(noise(8, 9)).save(tmp_path / "grey.jpg", quality=quality)
    assert files.jpeg_quality(tmp_path / "grey.jpg") == quality


def test_custom_quantization_tables_have_a_quality(tmp_path):
    flat = [[12] * 64, [12] * 64]
    Image.fromarray(noise(8, 9, 3)).save(tmp_path / "a.jpg", qtables=flat)
    # A fifth of the standard's sum: quality 90.
    assert files.jpeg_quality(tmp_path / "a.jpg") == 90
    Image.fromarray(noise(8, 9, 3)).save(tmp_path / "b.jpg", qtables=[[255] * 64] * 2)
    assert files.jpeg_quality(tmp_path / "b.jpg") == 11
    Image.fromarray(noise(8, 9, 3)).save(tmp_path / "c.jpg", qtables=[[1] * 64] * 2)
    assert files.jpeg_quality(tmp_path / "c.jpg") == 99


def test_other_files_have_no_quality(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(noise(8, 9, 3)).save(buffer, "PNG")
    contents = {
        "a.png": buffer.getvalue(),
        "empty.jpg": b"",
        "text.jpg": b"no image",
        "head.jpg": jpeg(tmp_path / "whole.jpg", 30).read_bytes()[:30],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert files.jpeg_quality(tmp_path / name) is None
    os.mkfifo(tmp_path / "fifo.jpg")  # opening it would block
    assert files.jpeg_quality(tmp_path / "fifo.jpg") is None
    assert files.jpeg_quality(tmp_path) is None
    assert files.jpeg_quality(tmp_path / "missing.jpg") is None


@pytest.fixture
def run(tmp_path, caplog):
    """Upscales a folder and returns the hints in the log."""

    def lines(*arguments: str) -> list[str]:
        caplog.clear()
        where = [str(tmp_path / "in"), "-o", str(tmp_path / "out")]
        with caplog.at_level("INFO", "espan"):
            assert main(["upscale", *where, "--device=cpu", *arguments]) == 0
        return [line for line in caplog.messages if "JPEG of quality" in line]

    return lines


def test_one_hint_per_run(run, tmp_path):
    for number in range(3):
        jpeg(tmp_path / f"in/{number}.jpg", 60)
    (hint,) = run()
    assert hint == f"{tmp_path}/in/0.jpg: JPEG of quality 60; try -n espan-x4-web"


@pytest.mark.parametrize(
    ("scale", "network"),
    [("2", "espan-x2-web"), ("1.5", "espan-x2-web"), ("3", "espan-x4-web"), ("4", "espan-x4-web")],
)
def test_the_suggested_network_fits_the_scale(run, tmp_path, scale, network):
    jpeg(tmp_path / "in/a.jpg", 40)
    (hint,) = run("-s", scale)
    assert hint.endswith(f"try -n {network}") and network in BUILTIN


def test_no_hint_for_good_images_or_other_networks(run, tmp_path, weights):
    jpeg(tmp_path / "in/a.jpg", 85)
    files.write(tmp_path / "in/b.png", Image.fromarray(noise(8, 9, 3)))
    assert run() == []
    jpeg(tmp_path / "in/a.jpg", 60)
    assert run("-n", "espan-x4-web") == []
    assert run("-n", weights) == []
    assert len(run("-n", "espan-x4")) == 1


def test_the_hint_goes_to_stderr_and_is_off_when_quiet(tmp_path):
    command = [sys.executable, "-m", "espan.cli", "upscale", jpeg(tmp_path / "a.jpg", 60)]
    for flags, expected in (([], 1), (["--quiet"], 0)):
        done = subprocess.run(
            [*command, "--device=cpu", *flags], capture_output=True, text=True, check=True
        )
        assert done.stderr.count("JPEG of quality 60; try -n espan-x4-web") == expected
        assert done.stdout == ""
