"""Images as bytes and open files: reading, and atomic writing."""

import io
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

import espan
from espan import InputError, LimitError, Limits, OutputError, Upscaler
from espan.execution import streaming
from espan.images import files
from tests.support.makers import noise, random_net

UP = Upscaler(random_net(), device="cpu", dtype="fp32")
PIXELS = noise(6, 9, 3)


def encoded(pixels: np.ndarray = PIXELS, format: str = "PNG", **how) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **how)
    return file.getvalue()


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_give_bytes(kind):
    out = UP(kind(encoded()))
    assert type(out) is bytes
    np.testing.assert_array_equal(np.asarray(decoded(out)), UP(PIXELS))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_the_format_stays(format):
    assert decoded(UP(encoded(format=format))).format == format


@pytest.mark.parametrize(("given", "format"), [("GIF", "PNG"), ("PPM", "PNG"), ("MPO", "JPEG")])
def test_formats_that_are_not_written_become_others(given, format):
    assert decoded(UP(encoded(format=given))).format == format


def test_a_format_that_is_asked_for():
    assert decoded(UP(encoded(), 2, format="webp")).format == "WEBP"
    with pytest.raises(InputError, match=r"format: expected one of png, .* got 'gif'"):
        UP(encoded(), format="gif")


def test_16_bits_and_profile_and_resolution_stay(tmp_path):
    deep = espan.Image16(
        noise(5, 4, 3, dtype=np.uint16), {"icc_profile": b"p" * 200, "dpi": (72, 72)}
    )
    data = files.write(tmp_path / "a.png", deep).read_bytes()
    out = files.read(files.write(tmp_path / "b.png", UP(tmp_path / "a.png")))
    again = files.read(files.encoded(UP(data), Limits()))
    np.testing.assert_array_equal(again.pixels, out.pixels)
    assert (
        again.info["icc_profile"] == deep.info["icc_profile"]
        and again.info.keys() == out.info.keys()
    )


def test_into_an_open_file_and_a_path(tmp_path):
    target = io.BytesIO()
    assert UP(encoded(), output=target) is target
    path = UP(io.BytesIO(encoded()), output=tmp_path / "a.jpg")
    assert path == tmp_path / "a.jpg" and decoded(path.read_bytes()).format == "JPEG"
    files.write(tmp_path / "in.webp", Image.fromarray(PIXELS))
    with (tmp_path / "out").open("wb") as file:
        UP(tmp_path / "in.webp", output=file, format="png")
    assert decoded((tmp_path / "out").read_bytes()).format == "PNG"
    assert target.getvalue() == UP(encoded())


def test_lists_and_the_short_form(weights):
    how = {"model": weights, "device": "cpu", "dtype": "fp32"}
    one, two = espan.upscale([encoded(), Image.fromarray(PIXELS)], **how)
    assert type(one) is bytes and two.size == (36, 24)
    assert decoded(espan.upscale(encoded(), format="bmp", **how)).format == "BMP"


def test_large_results_are_streamed(monkeypatch):
    used, stream_upscaled = [], streaming.stream_upscaled
    monkeypatch.setattr(streaming, "LARGE", 1)
    monkeypatch.setattr(
        streaming, "stream_upscaled", lambda *all: (used.append(1), stream_upscaled(*all))
    )
    np.testing.assert_array_equal(np.asarray(decoded(UP(encoded()))), UP(PIXELS))
    assert used


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the bytes: empty file"),
        (b"\xff\x00" * 500, "the bytes: not an image in a known format"),
        (encoded()[:-30], "the bytes: damaged or truncated"),
        (io.BytesIO(b"no"), "the open file: not an image"),
        (io.StringIO("text"), r"the open file: expected a binary file, but read\(\) returns str"),
    ],
    ids=["empty", "garbage", "cut", "open", "text"],
)
def test_data_that_is_not_an_image(data, reason):
    target = io.BytesIO()
    with pytest.raises(InputError, match=reason):
        UP(data, output=target)
    assert target.getvalue() == b""


def test_bytes_without_end():
    class Endless(io.RawIOBase):
        name, begins, taken = "/dev/zero", b"", 0

        def read(self, count=-1):
            begun, self.begins = self.begins[:count], self.begins[count:]
            self.taken += count
            return begun or bytes(count)

    small = Upscaler(UP.network, device="cpu", limits=Limits(max_input=100))
    endless = Endless()
    endless.begins = encoded()
    with pytest.raises(LimitError, match=r"/dev/zero: over 67,\d+,\d+ bytes"):
        small(endless)
    garbage = Endless()
    with pytest.raises(InputError, match=r"/dev/zero: not an image in a known format"):
        small(garbage)
    assert garbage.taken <= 4096  # no more is read than it takes to see it


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF"])
def test_open_files_of_all_formats_are_known_by_their_beginning(format):
    pixels = noise(40, 50, 3)  # more than the bytes that are looked at
    data = encoded(pixels, format)
    assert len(data) > 1024
    assert decoded(UP(io.BytesIO(data), 1)).size == (50, 40)


def test_heic_is_known_by_its_beginning(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(noise(64, 64, 3))).save(file, quality=100)
    assert len(file.getvalue()) > 1024
    assert decoded(UP(io.BytesIO(file.getvalue()), 1)).size == (64, 64)


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize("buffering", [0, -1])
def test_a_file_that_is_not_blocking_is_waited_for(buffering):
    data = encoded(noise(60, 60, 3))
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)

    def feed():
        with os.fdopen(theirs, "wb", buffering=0) as pipe:
            for start in range(0, len(data), 3000):
                time.sleep(0.02)
                pipe.write(data[start : start + 3000])

    writer = threading.Thread(target=feed)
    with os.fdopen(ours, "rb", buffering=buffering) as pipe:
        writer.start()
        assert decoded(UP(pipe, 1)).size == (60, 60)
    writer.join()


@pytest.mark.parametrize("base", [object, io.RawIOBase])
def test_a_file_without_bytes_that_cannot_be_waited_for_is_not_empty(base):
    class Never(base):
        def read(self, count):
            return None

    with pytest.raises(InputError, match=r"the open file: has no bytes yet .* make it blocking"):
        UP(Never())


def test_limits_hold(monkeypatch):
    with pytest.raises(LimitError, match="the bytes: 9 x 6 pixels are over the limit of 9"):
        Upscaler(UP.network, device="cpu", limits=Limits(max_input=9))(encoded())


class Broken(io.RawIOBase):
    """A pipe whose reader is closed."""

    def __init__(self):
        self.calls = 0

    def write(self, data):
        self.calls += 1
        raise BrokenPipeError(32, "Broken pipe")

    def read(self, count=-1):
        raise OSError(5, "Input/output error")


def test_a_closed_end():
    with pytest.raises(OutputError, match="the open file: could not be written: Broken pipe"):
        UP(encoded(), output=Broken())
    with pytest.raises(InputError, match="the open file: cannot be read: Input/output error"):
        UP(Broken())


def test_an_unsuitable_format_is_refused_before_the_work(tmp_path):
    target = Broken()
    with pytest.raises(OutputError, match="JPEG cannot hold transparency; choose png"):
        UP(encoded(noise(4, 4, 4)), output=target, format="jpg")
    assert target.calls == 0


@pytest.mark.parametrize(
    ("image", "how", "reason"),
    [
        (PIXELS, {"output": io.BytesIO()}, "output: only for images given as paths, bytes or open"),
        (PIXELS, {"format": "png"}, "format: only for images given as paths, bytes or open files"),
        ("a.png", {"format": "png"}, "format: only for bytes and open files"),
        (encoded(), {"output": "a.png", "format": "jpg"}, "format: only for bytes and open files"),
        (encoded(), {"output": 5}, "output: expected a path or an open binary file, got int"),
        ("https://a.b/c.png", {}, "https://a.b/c.png is a URL; download it first"),
        ("file:///c.png", {}, "is a URL"),
        ("s3://bucket/c.png", {}, "is a URL"),
    ],
    ids=range(8),
)
def test_bad_arguments_for_encoded_images(image, how, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=reason):
        UP(image, **how)
    assert not [*tmp_path.iterdir()]


def test_names_with_colons_that_are_there_are_no_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data:").mkdir()
    files.write(tmp_path / "data:/a.png", Image.fromarray(PIXELS))
    assert UP("data:/a.png").size == (36, 24)


class Sips(io.RawIOBase):
    """An unbuffered file that accepts 1000 bytes per write."""

    def __init__(self):
        self.taken = b""

    def writable(self):
        return True

    def write(self, data):
        self.taken += bytes(data[:1000])
        return min(len(data), 1000)


def test_a_file_that_takes_less_than_it_is_given_gets_all():
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole, sips = io.BytesIO(), Sips()
    for file in (whole, sips):
        UP(encoded(noise), output=file)
    assert sips.taken == whole.getvalue() and len(sips.taken) > 1000
