"""What a file is refused for is what is wrong with it: whole files are not called damaged."""

import struct

import numpy as np
import pytest
from PIL import Image

from espan import InputError
from espan.images import files
from espan.images.files import depth, heif
from tests.images.test_bad_files import refused, tiff
from tests.support.makers import noise

SHORT, RATIONAL = 3, 5


def with_tag(content: bytes, tag: int, kind: int, value: bytes) -> bytes:
    """A little-endian TIFF whose directory, written anew behind it, has one more tag or another."""
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    entries = [content[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    entries = [each for each in entries if struct.unpack_from("<H", each)[0] != tag]
    place = len(content)
    entries.append(struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", place)
                   if len(value) > 4 else
                   struct.pack("<HHI", tag, kind, 1) + value.ljust(4, b"\0"))  # fmt: skip
    new = struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + bytes(4)
    content = content[:4] + struct.pack("<I", place + len(value)) + content[8:]
    return content + value + new


GREY = tiff(4, 5, 8, 1, noise(5, 4, 1).tobytes(), photometric=1)


def test_signed_pixels_are_refused_by_name(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(with_tag(GREY, 339, SHORT, struct.pack("<H", 1)))
    np.testing.assert_array_equal(np.asarray(files.read(path)), noise(5, 4, 1)[..., 0])
    path.write_bytes(with_tag(GREY, 339, SHORT, struct.pack("<H", 2)))
    refused(path, "signed pixels are not supported")


def test_numbers_of_another_kind_are_not_told_as_pythons(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(with_tag(GREY, 273, RATIONAL, struct.pack("<II", 4, 1)))
    refused(path, "damaged or truncated: a value in it is of the wrong kind")


def test_grey_avif_of_10_bits(tmp_path, monkeypatch):
    """Pillow shows it as grey of 8 bits; its encoder makes none, so the file only claims them."""
    path = tmp_path / "a.avif"
    Image.fromarray(noise(8, 8, 1)[..., 0]).save(path)
    assert files.read(path).mode == "L"
    monkeypatch.setattr(depth, "bits", lambda image: 10)
    refused(path, "10-bit grey, which would be cut to 8 bits: of AVIF this is not read")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Unsupported feature: Unsupported codec", "HEIF of a kind that is not read: Unsupported"),
        ("Unsupported file-type: no brand", "HEIF of a kind that is not read"),
        ("Invalid input: End of file", "damaged or truncated: Invalid input: End of file"),
    ],
)
def test_heif_that_libheif_does_not_know(tmp_path, monkeypatch, said, reason):
    class Library:
        @staticmethod
        def open_heif(*_, **__):
            raise RuntimeError(said)

    monkeypatch.setattr(heif, "extra", lambda *_: Library)
    path = tmp_path / "a.heic"
    path.write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"heicmif1" + bytes(40))
    refused(path, reason)


def test_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(InputError, match=r"a\\x00\.png: no file can have this name"):
        files.read(tmp_path / "a\0.png")
