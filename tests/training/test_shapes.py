"""Drawn patches, and patches at the border of an image."""

import numpy as np
import pytest
import torch
from PIL import Image

from espan import InputError
from espan.images import files
from espan.training.config import TrainConfig
from espan.training.data import Patches
from espan.training.image_pairs import ImagePairs
from espan.training.outputs import LEVELS
from espan.training.shapes import drawn
from tests.support.makers import TINY_RUN


def draw(count: int, scale: int) -> list:
    return [drawn(12, scale, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_drawings_are_seeded_and_varied(scale):
    parts = draw(200, scale)
    for lr, hr in parts:
        assert lr.shape == (12, 12, 3) and hr.shape == (12 * scale, 12 * scale, 3)
        assert lr.dtype == hr.dtype == np.uint8
    again = drawn(12, scale, np.random.default_rng(7))
    assert all(np.array_equal(a, b) for a, b in zip(parts[7], again, strict=True))
    assert len({hr.tobytes() for _, hr in parts}) > 150


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_drawings_have_few_colours_and_lr_pixels_come_from_their_box(scale):
    kinds = set()
    for lr, hr in draw(200, scale):
        colours = np.unique(hr.reshape(-1, 3), axis=0)
        assert len(colours) <= 9  # no anti-aliasing: the background and at most eight more
        boxes = hr.reshape(12, scale, 12, scale, 3).swapaxes(1, 2).astype(float)
        mean = np.array_equal(lr, np.round(boxes.mean((2, 3))))
        one_of_them = (boxes == lr[:, :, None, None]).all(-1).any((2, 3)).all()
        assert mean or one_of_them
        whole = np.array_equal(lr.repeat(scale, 0).repeat(scale, 1), hr)
        kinds.add("flat" if len(colours) == 1 else ("whole", "mean", "one")[mean - whole])
    assert len(kinds) >= 3


def test_sampling_is_unbiased():
    """The mean position of an edge is the same in LR and HR."""
    shifts = []
    for seed in range(2000):
        lr, hr = drawn(12, 4, np.random.default_rng(seed))
        colours = np.unique(hr.reshape(-1, 3), axis=0)
        columns = (hr == hr[:1]).all() and len(colours) == 2
        if columns and len(np.unique(lr.reshape(-1, 3), axis=0)) == 2:
            left = (hr[0] == hr[0, 0]).all(1).mean(), (lr[0] == lr[0, 0]).all(1).mean()
            shifts.append(left[0] - left[1])
    assert len(shifts) > 50 and abs(np.mean(shifts)) < 1 / 48


@pytest.fixture
def images(tmp_path):
    """Two images without colours of drawings, whose pixels encode row and column."""
    y, x = np.mgrid[:40, :48].astype(np.uint8)
    for number in (1, 2):
        pixels = np.stack([y, x, np.full_like(x, number)], 2)
        files.write(tmp_path / f"{number}.png", Image.fromarray(pixels))
    return ImagePairs(tmp_path, 2)


def patches(images, **changes) -> Patches:
    small = {"data": "data", "out": "out", "patch": 6, "scale": 2, "batch": 200}
    return Patches(images, TrainConfig(**(TINY_RUN | small | changes)))


def is_cut(hr: torch.Tensor) -> torch.Tensor:
    """Which patches are cut from the images of the fixture."""
    return ((hr[:, 2] == 1) | (hr[:, 2] == 2)).flatten(1).all(1)


def test_a_share_of_the_patches_is_drawn(images):
    assert is_cut(patches(images).batch(0)[1]).all()
    share = float(is_cut(patches(images, shapes=0.25).batch(0)[1]).float().mean())
    assert 0.65 < share < 0.85
    assert not is_cut(patches(images, shapes=1.0).batch(0)[1]).any()


def test_of_a_drawing_the_teachers_say_what_it_is(images):
    outputs = [np.zeros(hr.shape, np.uint16) for _, hr in images.pairs]
    lr, hr, taught = patches(images.with_teacher_outputs(outputs), shapes=0.5).batch(0)
    cut = is_cut(hr)
    assert 50 < cut.sum() < 150 and lr.shape[0] == 200
    assert not taught[cut].any()
    exact = hr[~cut].int() * (LEVELS // 255)
    assert torch.equal(taught[~cut].int(), exact)


def test_a_share_of_the_patches_lies_at_the_border(images):
    def at_border(**changes) -> list[float]:
        hr = patches(images, **changes).batch(0)[1]
        rows, columns = hr[:, 0].flatten(1), hr[:, 1].flatten(1)
        touches = [rows.amin(1) == 0, rows.amax(1) == 39, columns.amin(1) == 0]
        touches.append(columns.amax(1) == 47)
        return [float(each.float().mean()) for each in touches]

    assert all(share < 0.15 for share in at_border())
    everywhere = at_border(borders=1.0)
    assert sum(everywhere) >= 1 and all(share > 0.15 for share in everywhere)


def test_drawings_are_not_taught_by_teachers_that_run_at_each_step():
    with pytest.raises(InputError, match="shapes: teachers that run in each step"):
        TrainConfig("data", "out", shapes=0.1, teacher=["a.pth"])
    TrainConfig("data", "out", shapes=0.1, teacher=["a.pth"], teacher_outputs="kept")
    with pytest.raises(InputError, match="shapes: expected at most 1, got 2"):
        TrainConfig("data", "out", shapes=2)
