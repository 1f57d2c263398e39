"""Transparency: no dark edges, constant alpha without extra work, unchanged visible colours."""

import numpy as np
import pytest
import torch

from espan import Upscaler
from espan.images.alpha import bleed
from espan.images.resize import resize
from tests.support.makers import disc, nearest_net, noise, random_net


@torch.no_grad()
def blurring_net():
    """Repeats the mean of 9 x 9 pixels, which mixes colours of neighbours."""
    net = nearest_net()
    for c in range(3):
        net.conv_1.weight[c, c] = 1 / 81
    return net


def test_no_dark_edge():
    # Transparent pixels are black; blurring would darken the rim.
    out = Upscaler(blurring_net(), device="cpu", dtype="fp32")(
        np.pad(disc(), ((16, 16), (16, 16), (0, 0)))
    )
    visible = out[out[..., 3] > 0][:, :3]
    assert len(visible) > 1000
    assert np.abs(visible.astype(int) - [200, 180, 220]).max() <= 1


def test_colour_under_transparent_pixels_does_not_matter():
    image, other = disc(), disc()
    other[other[..., 3] == 0, :3] = [0, 255, 0]
    up = Upscaler(random_net(), device="cpu", dtype="fp32")
    np.testing.assert_array_equal(up(image), up(other))


@pytest.mark.parametrize("scale", [4, 2.5])
def test_alpha_is_enlarged_by_bicubic(scale):
    image = noise(12, 10, 4)
    out = Upscaler(random_net(), device="cpu", dtype="fp32")(image, scale)
    np.testing.assert_array_equal(out[..., 3], resize(image[..., 3], out.shape[:2]))


def test_alpha_is_unchanged_away_from_edges():
    image = noise(24, 24, 4)
    image[..., 3] = 0
    image[6:18, 6:18, 3] = 255
    alpha = Upscaler(random_net(), device="cpu")(image)[..., 3]
    assert (alpha[32:64, 32:64] == 255).all()
    assert (alpha[:16] == 0).all() and (alpha[:, :16] == 0).all()


def test_opaque_colours_are_as_without_alpha():
    image = noise(12, 10, 4) | np.array([0, 0, 0, 1], np.uint8)  # no fully transparent pixels
    up = Upscaler(random_net(), device="cpu", dtype="fp32")
    np.testing.assert_array_equal(up(image)[..., :3], up(image[..., :3].copy()))


@pytest.mark.parametrize("channels", [2, 4], ids=["LA", "RGBA"])
@pytest.mark.parametrize(
    ("dtype", "alpha"),
    [(np.uint8, 255), (np.uint8, 0), (np.uint8, 77), (np.uint16, 40001), (np.float32, 0.3),
     (np.float64, 0.3), (np.float16, 0.7)],
    ids=str,
)  # fmt: skip
def test_constant_alpha_is_kept_without_extra_work(monkeypatch, channels, dtype, alpha):
    image = noise(12, 10, channels, dtype=dtype)
    image[..., -1] = alpha
    up = Upscaler(random_net(), device="cpu", dtype="fp32")
    calls, forward = [], up._runner._forward
    monkeypatch.setattr(up._runner, "_forward", lambda *args: calls.append(1) or forward(*args))
    out = up(image)
    assert (out[..., -1] == image[0, 0, -1]).all()
    assert len(calls) == 1
    np.testing.assert_array_equal(out[..., :-1], up(image[..., :-1].copy()))


def test_constant_alpha_survives_other_scales():
    image = noise(12, 10, 4)
    image[..., 3] = 77
    assert (Upscaler(random_net(), device="cpu", dtype="fp32")(image, 2.5)[..., 3] == 77).all()


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 12), (16, 16)], ids=str)
def test_bleed_fills_holes_only(size, dtype):
    generator = torch.Generator().manual_seed(0)
    colour = torch.rand(3, *size, generator=generator).mul(200).to(dtype)
    alpha = (torch.rand(size, generator=generator) * 200 - 100).clamp(0).to(dtype)
    before = colour.clone()
    filled = bleed(colour, alpha)
    shown = alpha.float() > 0
    assert filled.dtype == dtype and filled.shape == colour.shape
    assert torch.equal(filled.double()[:, shown], colour.double()[:, shown])
    assert torch.equal(colour, before)
    if shown.any():
        low, high = colour.double()[:, shown].amin(1), colour.double()[:, shown].amax(1)
        assert (filled.double() >= low.view(3, 1, 1) - 1e-4).all()
        assert (filled.double() <= high.view(3, 1, 1) + 1e-4).all()


def test_bleed_of_one_colour_is_that_colour():
    image = torch.from_numpy(disc()).permute(2, 0, 1)
    filled = bleed(image[:3], image[3])
    assert (filled == torch.tensor([200, 180, 220]).view(3, 1, 1)).all()


def test_bleed_takes_the_nearer_colour():
    colour = torch.zeros(1, 1, 64)
    colour[0, 0, :4], colour[0, 0, -4:] = 0.2, 0.8
    alpha = (colour[0] > 0).float()
    filled = bleed(colour, alpha)[0, 0]
    assert filled[6] == pytest.approx(0.2, abs=1e-5) and filled[57] == pytest.approx(0.8, abs=1e-5)


def test_float_alpha_a_little_below_zero():
    # Filters overshoot: values slightly below 0 are as transparent as 0.
    image = disc().astype(np.float32) / 255
    below = image.copy()
    below[image[..., 3] == 0, 3] = -0.01
    up = Upscaler(blurring_net(), device="cpu", dtype="fp32")
    visible = image.repeat(4, 0).repeat(4, 1)[..., 3] > 0
    np.testing.assert_allclose(up(below)[visible][:, :3], up(image)[visible][:, :3], atol=0.01)


def test_alpha_too_small_for_sums():
    image = noise(40, 40, 4, dtype=np.float32)
    image[..., 3] = 0
    image[0, 0, 3] = 1e-42
    assert np.isfinite(Upscaler(random_net(), device="cpu", dtype="fp32")(image)).all()
