"""Types of images: PIL modes, arrays and tensors of any memory layout, and refusals."""

import numpy as np
import pytest
import torch
from PIL import Image

from espan import InputError, NonFiniteError, Upscaler
from espan.images.resize import resize
from tests.support.makers import disc, nearest_net, noise, random_net

UP = Upscaler(random_net(), device="cpu", dtype="fp32")
H, W = 6, 9


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pil_mode_is_kept(mode):
    if mode == "I;16":
        image = Image.fromarray(noise(H, W, dtype=np.uint16))
    else:
        image = Image.fromarray(noise(H, W, 4)).convert(mode)
    out = UP(image)
    assert isinstance(out, Image.Image)
    assert out.mode == mode and out.size == (4 * W, 4 * H)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_pil_equals_the_array(mode):
    channels = {"LA": (2,), "RGB": (3,), "RGBA": (4,)}.get(mode, ())
    pixels = noise(H, W, *channels, dtype=np.uint16 if mode == "I;16" else np.uint8)
    np.testing.assert_array_equal(np.asarray(UP(Image.fromarray(pixels))), UP(pixels))


def test_big_endian_16_bit_pil():
    pixels = noise(H, W, dtype=np.uint16)
    image = Image.frombytes("I;16B", (W, H), pixels.astype(">u2").tobytes())
    out = UP(image)
    assert out.mode == "I;16B"
    np.testing.assert_array_equal(
        np.frombuffer(out.tobytes(), ">u2").reshape(4 * H, -1), UP(pixels)
    )


def test_palette_with_transparency_stays_transparent():
    image = Image.fromarray(disc()[..., 3] // 255).convert("P")
    image.putpalette([0, 0, 0, 90, 160, 30])
    image.info["transparency"] = 0
    out = Upscaler(nearest_net(), device="cpu", dtype="fp32")(image)
    assert out.mode == "P"
    expected = resize(disc()[..., 3], (out.height, out.width)).astype(int)
    got = np.asarray(out.convert("RGBA"))[..., 3]
    flat = (expected == 0) | (expected == 255)  # elsewhere the palette has only the nearest value
    np.testing.assert_allclose(got[flat], expected[flat], atol=2)
    assert np.abs(got - expected).max() < 32


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "I;16"])
def test_transparent_colour_is_kept_or_refused(mode):
    image = Image.new(mode, (W, H), 1 if mode in ("L", "I;16") else 0)
    image.info["transparency"] = image.getpixel((0, 0))
    try:
        out = UP(image)
    except InputError as error:
        assert "transparen" in str(error)
    else:
        assert "A" in out.mode and np.asarray(out)[..., -1].max() == 0


def test_profile_and_resolution_are_kept():
    image = Image.fromarray(noise(H, W, 3))
    image.info.update(icc_profile=b"profile", dpi=(72, 72))
    assert UP(image).info.items() >= {"icc_profile": b"profile", "dpi": (72, 72)}.items()


@pytest.mark.parametrize(
    ("view", "how"),
    [
        (lambda a: a[::-1, ::-1], "negative strides"),
        (lambda a: a[:, :, ::-1], "bgr"),
        (lambda a: a[::2, 1::3], "steps"),
        (lambda a: a.transpose(1, 0, 2), "transposed"),
        (lambda a: np.asfortranarray(a), "fortran"),
        (lambda a: np.broadcast_to(a[:1, :1], a.shape), "zero strides"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_views_of_every_kind(view, how):
    image = view(noise(12, 15, 3))
    np.testing.assert_array_equal(UP(image), UP(np.ascontiguousarray(image)))


def test_field_of_a_record_array():
    # Strides that are not multiples of the element size.
    records = np.zeros((5, 6), [("before", "u1"), ("grey", "f4")])
    records["grey"] = noise(5, 6, dtype=np.float32)
    np.testing.assert_array_equal(UP(records["grey"]), UP(records["grey"].copy()))


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
def test_big_endian_arrays(dtype):
    image = noise(H, W, 3, dtype=np.dtype(dtype).type)
    swapped = image.astype(">" + dtype)
    np.testing.assert_array_equal(UP(swapped), UP(image))


def test_read_only_arrays():
    image = noise(H, W, 3)
    image.flags.writeable = False
    np.testing.assert_array_equal(UP(image), UP(image.copy()))


def test_tensors_that_require_grad():
    image = torch.rand(3, H, W, requires_grad=True)
    for refused in (image, image[None]):
        with pytest.raises(InputError, match=r"requires_grad.*detach\(\)"):
            UP(refused)
    with torch.no_grad():
        out = UP(image)
    assert not out.requires_grad and not out.is_inference()
    assert torch.equal(out, UP(image.detach()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64], ids=lambda d: d.__name__)
def test_floats_that_are_not_finite(dtype, bad):
    image = noise(H, W, 3, dtype=dtype)
    image[2, 3, 1] = bad
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        UP(image)


def test_floats_in_0_to_255_are_refused():
    with pytest.raises(InputError, match=r"float values are 0\.\.1, got .*divide"):
        UP(noise(H, W, 3).astype(np.float32))


def test_small_overshoot_is_accepted():
    image = noise(H, W, 3, dtype=np.float32) * 1.2 - 0.1
    assert np.isfinite(UP(image)).all()


@pytest.mark.parametrize(
    "image",
    [
        noise(3, 4, 5),
        noise(2, 3, 4, 3),
        noise(7),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int32),
        np.zeros((4, 4), bool),
        np.zeros((4, 4), np.complex64),
        np.zeros((4, 4), object),
        torch.zeros(4, 4),
        torch.zeros(5, 4, 4),
        torch.zeros(3, 0, 4),
        torch.zeros(3, 4, 4, dtype=torch.int64),
        Image.new("CMYK", (4, 4)),
        Image.new("F", (4, 4)),
        Image.new("RGB", (0, 4)),
        None,
        3,
        {"a": 1},
    ],
    ids=lambda i: str(getattr(i, "shape", getattr(i, "mode", i))),
)
def test_data_that_is_not_an_image(image):
    with pytest.raises(InputError, match="image: "):
        UP(image)
