"""Written image files: names, atomic writes, limits of formats."""

import errno
import os

import numpy as np
import pytest
from PIL import Image

from espan import OutputError
from espan.images import files
from tests.support.makers import noise


@pytest.mark.parametrize(
    "name", ["фото.png", "写真 1.png", "a\u0308 b'\"$%.png", "x" * 250 + ".png"]
)
def test_names_of_every_kind(tmp_path, name):
    pixels = noise(2, 3, 3)
    path = files.write(tmp_path / name, Image.fromarray(pixels))
    np.testing.assert_array_equal(np.asarray(files.read(path)), pixels)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def full_disk(self, target, **_how):
    (target if hasattr(target, "write") else open(target, "wb")).write(b"half")  # noqa: PTH123, SIM115
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def disk_full_at_last(_rows):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fails_to_sync(_number):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("there", [True, False], ids=["old-file", "no-file"])
@pytest.mark.parametrize(
    ("name", "what", "how", "reason"),
    [
        ("a.webp", "PIL.Image.Image.save", full_disk, "No space left on device"),
        (
            "a.png",
            "espan.images.files.png.PngRows.finish",
            disk_full_at_last,
            "No space left on device",
        ),
        ("a.png", "os.fsync", fails_to_sync, "Input/output error"),
    ],
    ids=["disk-full", "disk-full-at-last", "no-sync"],
)
def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch, name, what, how, reason, there):
    path = tmp_path / name
    if there:
        path.write_bytes(b"old")
    monkeypatch.setattr(what, how)
    with pytest.raises(OutputError, match=rf"{name}: could not be written: {reason}"):
        files.write(path, Image.new("L", (4, 4)))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(name, b"old")] * there


def test_new_file_replaces_the_old_one_atomically(tmp_path):
    # A reader with the old file open still reads it in full: it is never overwritten.
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        files.write(path, Image.new("L", (4, 4)))
        assert reader.read() == b"old"
    assert files.read(path).size == (4, 4)


def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    def interrupted(*_args, **_how):
        raise KeyboardInterrupt

    (tmp_path / "a.webp").write_bytes(b"old")
    monkeypatch.setattr("PIL.Image.Image.save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "a.webp", Image.new("L", (4, 4)))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.webp", b"old")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="not writable"):
        files.write(tmp_path / "a.png", Image.new("L", (4, 4)))


def test_missing_output_folder(tmp_path):
    with pytest.raises(OutputError, match="no such folder"):
        files.write(tmp_path / "none/a.png", Image.new("L", (4, 4)))


@pytest.mark.parametrize(
    ("name", "mode", "size", "reason"),
    [
        ("a.jpg", "RGBA", (4, 4), "JPEG cannot hold transparency"),
        ("a.jpg", "LA", (4, 4), "JPEG cannot hold transparency"),
        ("a.jpg", "LA;16", (4, 4), "JPEG cannot hold transparency"),
        ("a.bmp", "RGBA;16", (4, 4), "BMP cannot hold transparency"),
        ("a.webp", "RGBA;16", (4, 4), "WEBP cannot hold RGBA;16 pixels"),
        ("a.jpg", "I;16", (4, 4), "JPEG cannot hold I;16"),
        ("a.webp", "I;16", (4, 4), "WEBP cannot hold I;16"),
        ("a.bmp", "RGBA", (4, 4), "BMP cannot hold transparency"),
        ("a.webp", "RGB", (16384, 1), "at most 16383 pixels a side"),
        ("a.jpg", "RGB", (1, 65536), "at most 65535 pixels a side"),
        ("a.gif", "RGB", (4, 4), r"cannot write \.gif"),
        ("a", "RGB", (4, 4), "cannot write a file without extension"),
    ],
)
def test_limits_of_formats(tmp_path, name, mode, size, reason):
    with pytest.raises(OutputError, match=rf"{name}: .*{reason}"):
        files.check_output(tmp_path / name, mode, size)
