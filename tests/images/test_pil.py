"""PIL images and arrays that share memory, without copies or side effects."""

import copy
import gc
import weakref

import numpy as np
import pytest
from PIL import Image

from espan import Upscaler
from espan.images import pil
from espan.system import pinned
from tests.support.makers import noise, random_net

# Without it pixels are copied.
needs_arrow = pytest.mark.skipif(not pil.HAS_ARROW, reason="Pillow before 13")

MODES = {"L": 1, "LA": 2, "RGB": 4, "RGBA": 4, "I;16": 1, "I;16B": 1}


def arrays(mode: str, height: int = 9, width: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Returns (the argument of `pil.image`, the expected pixels)."""
    dtype = np.uint16 if mode in pil.DEEP else np.uint8
    array = noise(height, width, MODES[mode], dtype=dtype)
    return array, array[..., : 3 if mode == "RGB" else MODES[mode]].squeeze()


@pytest.mark.parametrize("has_arrow", [pytest.param(True, marks=needs_arrow), False])
@pytest.mark.parametrize("mode", MODES)
def test_an_array_becomes_an_image(mode, has_arrow, monkeypatch):
    monkeypatch.setattr(pil, "HAS_ARROW", has_arrow)
    array, want = arrays(mode)
    image = pil.image(array, mode)
    assert image.mode == mode and image.size == (7, 9)
    np.testing.assert_array_equal(np.asarray(image), want)
    np.testing.assert_array_equal(np.asarray(copy.deepcopy(image)), want)
    np.testing.assert_array_equal(np.asarray(image.copy()), want)
    np.testing.assert_array_equal(pil.pixels(image), want)


@pytest.mark.parametrize("mode", ["L", "RGBA", "RGB"])
def test_an_image_made_of_a_buffer(mode):
    """Pillow before 13 crashed in its Arrow interface for memory that it had not allocated."""
    array = noise(9, 7, len(mode))
    shown = Image.frombuffer(mode, (7, 9), array, "raw", mode, 0, 1)
    want = np.asarray(shown).copy()
    np.testing.assert_array_equal(pil.pixels(shown), want)
    assert Upscaler(random_net(), device="cpu", dtype="fp32")(shown).size == (28, 36)


@needs_arrow
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_the_image_is_the_array(mode):
    array = arrays(mode)[0]
    image, gone = pil.image(array, mode), weakref.ref(array)
    array[2, 3] = 5
    assert image.getpixel((3, 2)) in (5, (5,) * 3, (5,) * 4)
    del array
    gc.collect()
    assert gone() is not None and image.getpixel((3, 2)) in (5, (5,) * 3, (5,) * 4)
    del image
    gc.collect()
    assert gone() is None


@needs_arrow
def test_changing_the_image_does_not_change_the_array():
    array, want = arrays("RGB")
    image = pil.image(array, "RGB")
    image.putpixel((0, 0), (1, 2, 3))
    image.paste((9, 9, 9), (1, 1, 3, 3))
    assert image.getpixel((0, 0)) == (1, 2, 3) and image.getpixel((2, 2)) == (9, 9, 9)
    np.testing.assert_array_equal(array[..., :3], want)
    # The fourth byte is ignored.
    plain = Image.fromarray(np.ascontiguousarray(want))
    for change in (
        lambda each: each.resize((20, 15), Image.Resampling.LANCZOS),
        lambda each: each.convert("RGBA"),
        lambda each: each.convert("L"),
        lambda each: each.rotate(30, expand=True),
        lambda each: Image.merge("RGB", each.split()[::-1]),
    ):
        other = change(pil.image(array, "RGB"))
        assert other.tobytes() == change(plain).tobytes()


@needs_arrow
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (300, 2)], ids=str)
def test_pixels_are_the_images_own_memory(mode, size):
    image = Image.fromarray(noise(size[1], size[0]))
    image = image.convert(mode)
    shown = pil.pixels(image)
    np.testing.assert_array_equal(shown, np.asarray(image))
    image.putpixel((0, 0), (3,) * len(mode) if len(mode) > 1 else 3)
    assert np.all(shown[0, 0] == 3)
    del image
    gc.collect()
    assert np.all(shown[0, 0] == 3)


@pytest.mark.parametrize("mode", ["LA", "I;16", "P", "1", "RGB"])
def test_pixels_that_cannot_be_shared_are_copied(mode, monkeypatch):
    image = Image.fromarray(noise(9, 7)).convert(mode)
    if mode == "RGB":  # in several blocks, like large images

        def pieces(self):
            raise ValueError("Image is in multiple array blocks")

        monkeypatch.setattr(Image.Image, "__arrow_c_array__", pieces)
    np.testing.assert_array_equal(pil.pixels(image), np.asarray(image))


@needs_arrow
def test_an_image_of_many_blocks():
    image = Image.fromarray(noise(3000, 2500, 3))  # larger than one of Pillow's blocks
    with pytest.raises(ValueError, match=r"contiguous|block"):
        image.__arrow_c_array__()
    np.testing.assert_array_equal(pil.pixels(image), np.asarray(image))


@pytest.mark.parametrize("scale", [4, 2.5])
def test_the_fourth_byte_of_a_result_is_opaque(scale):
    """Previous contents of the memory do not leak."""
    up = Upscaler(random_net(), device="cpu", dtype="fp32")
    up._runner.empty = lambda *args: pinned.pageable(*args).fill_(7)
    result = up(Image.fromarray(noise(9, 7, 3)), scale)
    assert set(result.tobytes("raw", "RGBX")[3::4]) == {255}


def test_image_whose_file_is_closed_is_one_frame(tmp_path):
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "one.gif")
    with Image.open(tmp_path / "one.gif") as image:
        image.load()
    assert Upscaler(device="cpu")(image).size == (16, 12)
