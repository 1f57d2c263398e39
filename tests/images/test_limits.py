"""Limits of image files that the caller sets: pixels, and truncated files."""

import logging
import sys
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

import espan
from espan import InputError, LimitError, Limits, Upscaler
from espan.cli import main
from espan.images import files
from espan.images.files.pillow import decoding
from espan.images.image16 import Image16
from espan.options import LIMITS
from tests.support.makers import RGB, nearest_net, noise, png
from tests.support.threads import in_threads

PIXELS = noise(64, 48, 3)


def cut(path, share: float = 0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def test_more_than_pillows_limit_on_request_only(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    with pytest.raises(LimitError, match="over the limit of 999"):
        files.read(path, limits=Limits(max_input=999))
    with pytest.raises(LimitError, match="limit of 3,071"):
        files.read(path, limits=Limits(max_input=64 * 48 - 1))
    assert files.read(path, limits=Limits(max_input=64 * 48)).size == (48, 64)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_raised_limit_applies_to_one_file(tmp_path):
    # 90 and 400 megapixels: Pillow alone warns about the first and refuses the second.
    for side in (9500, 20000):
        path = tmp_path / f"{side}.png"
        path.write_bytes(png(side, side, 8, RGB, None))
        with pytest.raises(LimitError):
            files.read(path)
        with pytest.raises(InputError, match="damaged or truncated"):  # it reached the pixels
            files.read(path, limits=Limits(max_input=side * side))
        with pytest.raises(LimitError):
            files.read(path)
    assert LIMITS.max_input == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif", "ppm"])
def test_truncated_on_request_with_a_warning(tmp_path, caplog, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path)
    whole = np.asarray(files.read(path).convert("RGB"))
    cut(path)
    with pytest.raises(InputError, match="truncated"):
        files.read(path)
    with caplog.at_level(logging.WARNING, "espan"):
        try:
            image = files.read(path, limits=Limits(allow_truncated=True))
        except InputError:
            assert suffix in ("tif", "bmp", "ppm"), "Pillow reads truncated files of this format"
            return
    # BMP stores the bottom row first.
    equal = (np.asarray(image.convert("RGB")) == whole).all((1, 2))
    assert equal[:3].all() or equal[-3:].all()
    (record,) = caplog.records
    assert str(path) in record.getMessage() and "truncated" in record.getMessage()
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_truncated_16_bits(tmp_path, caplog):
    pixels = noise(64, 48, 3, dtype=np.uint16)
    path = cut(files.write(tmp_path / "a.png", Image16(pixels)))
    image = files.read(path, limits=Limits(allow_truncated=True))
    np.testing.assert_array_equal(image.pixels[:20], pixels[:20])
    assert len(caplog.records) == 1


def test_intact_files_give_no_warning(tmp_path, caplog):
    path = files.write(tmp_path / "a.png", Image.fromarray(PIXELS))
    files.read(path, limits=Limits(allow_truncated=True))
    assert not caplog.records


@pytest.mark.parametrize("content", [b"", b"hello\n" * 50], ids=["empty", "text"])
def test_files_that_are_no_images_stay_errors(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError):
        files.read(tmp_path / "a.png", limits=Limits(allow_truncated=True))


def test_limits_of_an_upscaler(tmp_path, caplog):
    path = files.write(tmp_path / "a.png", Image.fromarray(PIXELS))
    net = nearest_net()
    with pytest.raises(LimitError, match="limit of 100"):
        Upscaler(net, device="cpu", limits=Limits(max_input=100))(path)
    with pytest.raises(LimitError, match="output limit of 49,000"):
        espan.upscale(path, model=net, device="cpu", limits=Limits(max_output=49_000))
    cut(path)
    large = espan.upscale(path, model=net, device="cpu", limits=Limits(allow_truncated=True))
    assert large.size == (192, 256) and len(caplog.records) == 1


def test_limits_do_not_leak_between_threads(tmp_path):
    # One thread allows truncated files, another large ones; two use the defaults.
    broken = tmp_path / "broken.png"
    Image.fromarray(PIXELS).save(broken)
    whole = files.write(tmp_path / "whole.png", Image.fromarray(PIXELS))
    cut(broken)
    large = tmp_path / "large.png"
    large.write_bytes(png(9500, 9500, 8, RGB, None))
    before, wrong, filters = Image.MAX_IMAGE_PIXELS, [], [*warnings.filters]

    def expect(error, **how):
        path = large if "max_input" in how or error is LimitError else broken
        for _ in range(40):
            try:
                files.read(path, limits=Limits(**how))
                files.read(whole)
                wrong.extend([how] if error else [])
            except Exception as caught:
                if error is None or type(caught) is not error:
                    wrong.append((how, caught))

    asked = [
        (None, {"allow_truncated": True}),
        (InputError, {"max_input": 10**8}),
        (InputError, {}),
        (LimitError, {}),
    ]
    threads = [threading.Thread(target=expect, args=(error,), kwargs=how) for error, how in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert before == Image.MAX_IMAGE_PIXELS and not ImageFile.LOAD_TRUNCATED_IMAGES
    assert [*warnings.filters] == filters


def test_a_limit_raised_by_another_thread_is_not_saved_as_the_default(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = files.write(tmp_path / "a.png", Image.fromarray(PIXELS))
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(
            lambda _: [files.read(path, limits=Limits(max_input=64 * 48)) for _ in range(100)], 4
        )
    finally:
        sys.setswitchinterval(switch)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_options_of_the_command(tmp_path, weights, capsys):
    path = files.write(tmp_path / "a.png", Image.fromarray(PIXELS))
    command = ["upscale", "--device=cpu", "-n", weights, str(path), "-o", str(tmp_path / "b.png")]
    assert main([*command, "--max-pixels", "3071"]) == 1
    said = capsys.readouterr().err
    assert "over the limit of 3,071" in said and "--max-pixels N raises" in said
    assert main([*command, "--max-output-pixels", "49151"]) == 1
    said = capsys.readouterr().err
    assert "output limit of 49,151" in said and "--max-output-pixels N raises" in said
    cut(path)
    assert main(command) == 1
    assert main([*command, "--allow-truncated"]) == 0
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (192, 256)


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_bad_limits(value, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["upscale", "--device=cpu", "a.png", "--max-pixels", value])
    assert (
        ended.value.code == 2 and "expected a whole number of at least 1" in capsys.readouterr().err
    )


@pytest.mark.parametrize("first", ["tolerant", "strict"])
def test_changed_settings_are_exclusive(tmp_path, first):
    # The first thread stays inside until `go_on` is set.
    path = cut(files.write(tmp_path / "a.png", Image.fromarray(PIXELS)))
    inside, go_on, came = threading.Event(), threading.Event(), threading.Event()

    def stay():
        with decoding(truncated=first == "tolerant"):
            inside.set()
            go_on.wait(60)

    def read():
        with decoding(truncated=first == "strict"):
            came.set()

    threads = [threading.Thread(target=stay), threading.Thread(target=read)]
    threads[0].start()
    assert inside.wait(60) and ImageFile.LOAD_TRUNCATED_IMAGES is (first == "tolerant")
    threads[1].start()
    assert not came.wait(0.3)
    go_on.set()
    assert came.wait(60)
    for thread in threads:
        thread.join()
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(InputError):
        files.read(path)


def test_default_settings_decode_in_parallel():
    both = threading.Barrier(2, timeout=60)

    def meet():
        with decoding():
            both.wait()

    other = threading.Thread(target=meet)
    other.start()
    meet()
    other.join()


def test_limits_are_arguments(tmp_path):
    path = files.write(tmp_path / "a.png", Image.new("L", (10, 10)))
    whole = Limits(max_input=100, max_output=1600)
    assert files.read(path, scale=4, limits=whole).size == (10, 10)
    with pytest.raises(LimitError, match="over the limit of 99"):
        files.read(path, limits=Limits(max_input=99))
    with pytest.raises(LimitError, match="output limit of 1,599"):
        files.read(path, scale=4, limits=Limits(max_output=1599))
