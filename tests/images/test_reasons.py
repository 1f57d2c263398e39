"""Refusals state the actual reason: intact files are not called damaged."""

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
    """Adds or replaces a tag of a little-endian TIFF, with a new directory at its end."""
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


def test_signed_pixels_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(with_tag(GREY, 339, SHORT, struct.pack("<H", 1)))
    np.testing.assert_array_equal(np.asarray(files.read(path)), noise(5, 4, 1)[..., 0])
    path.write_bytes(with_tag(GREY, 339, SHORT, struct.pack("<H", 2)))
    refused(path, "signed pixels are not supported")


def test_wrong_types_are_not_reported_in_terms_of_python(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(with_tag(GREY, 273, RATIONAL, struct.pack("<II", 4, 1)))
    refused(path, "damaged or truncated: a value has the wrong type")


def test_grey_avif_of_10_bits(tmp_path, monkeypatch):
    """Pillow returns 8-bit grey and cannot encode 10 bits, so the depth is patched."""
    path = tmp_path / "a.avif"
    Image.fromarray(noise(8, 8, 1)[..., 0]).save(path)
    assert files.read(path).mode == "L"
    monkeypatch.setattr(depth, "bits", lambda image: 10)
    refused(path, "10-bit grey in AVIF is not supported, as it would be reduced to 8 bits")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "Unsupported feature: Unsupported codec",
            "this kind of HEIF is not supported: Unsupported",
        ),
        ("Unsupported file-type: no brand", "this kind of HEIF is not supported"),
        ("Invalid input: End of file", "damaged or truncated: Invalid input: End of file"),
    ],
)
def test_heif_that_libheif_cannot_decode(tmp_path, monkeypatch, said, reason):
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
