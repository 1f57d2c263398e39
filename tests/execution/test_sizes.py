"""Results of a given size: scales beyond the network's, widths, boxes; the same in Python and on
the command line."""

import numpy as np
import pytest
import torch
from PIL import Image

import espan
from espan import InputError, LimitError, Size, Upscaler
from espan.execution import streaming
from espan.images import files
from espan.images.resize import resize
from espan.sizes import LARGEST, from_text, nearest, passes, scale_text, tag
from tests.support.makers import noise, random_net

NET = random_net()
UP = Upscaler(NET, device="cpu", dtype="fp32")


@pytest.mark.parametrize(
    ("size", "before", "after"),
    [
        ({"width": 1920}, (640, 480), (1920, 1440)),
        ({"width": 100}, (640, 480), (100, 75)),
        ({"width": 2}, (3, 1000), (2, 667)),
        ({"height": 7}, (10, 5), (14, 7)),
        ({"height": 1}, (1, 3000), (1, 1)),
        ({"fit": (1920, 1080)}, (640, 480), (1440, 1080)),
        ({"fit": [1920, 1080]}, (640, 200), (1920, 600)),
        ({"max_side": 1000, "scale": 4}, (640, 480), (1000, 750)),
        ({"max_side": 3000, "scale": 4}, (640, 480), (2560, 1920)),
        ({"max_side": 2560, "scale": 4}, (480, 640), (1920, 2560)),
        ({"max_side": 320, "scale": 1.5}, (640, 480), (320, 240)),
    ],
    ids=str,
)
def test_sizes(size, before, after):
    assert Size(**size).of(*before) == after


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ({}, "one of width, height, fit, max_side, got none"),
        ({"width": 0}, "width: expected a whole number of 1 or more, got 0"),
        ({"height": True}, "height: expected a whole number of 1 or more, got True"),
        ({"max_side": 2.5}, "max_side: expected a whole number"),
        ({"fit": 10}, r"fit: expected \(width, height\), got 10"),
        ({"fit": (10, 0)}, r"fit: expected \(width, height\), got \(10, 0\)"),
        ({"width": 3, "height": 3}, "got width and height"),
        ({"width": 3, "scale": 2}, "scale: cannot be given with width"),
        ({"max_side": 3, "scale": 0.5}, f"scale: expected 1 to {LARGEST}, got 0.5"),
    ],
    ids=str,
)
def test_sizes_that_cannot_be(size, reason):
    with pytest.raises(InputError, match=reason):
        Size(**size)


@pytest.mark.parametrize(
    "text", ["10", "10x", "x10", "10x10x10", "1e3x5", " 1x1", "-1x1", "9" * 5000]
)
def test_boxes_that_cannot_be_read(text):
    with pytest.raises(InputError, match="fit: expected WIDTHxHEIGHT, as 1920x1080"):
        from_text({"fit": text}, None)


def test_texts_become_sizes():
    assert from_text({"fit": "30x20"}, None) == Size(fit=(30, 20))
    assert from_text({"max_side": "30"}, 3) == Size(max_side=30, scale=3)
    assert from_text({"width": None}, 2.5) == 2.5


def test_too_far_is_refused():
    with pytest.raises(
        LimitError, match="2 x 2 pixels cannot become 200 x 200: the scale is at most 64"
    ):
        UP(noise(2, 2, 3), Size(width=200))


@pytest.mark.parametrize(
    ("target", "own", "expected"),
    [
        ((40, 28), 4, [(40, 28)]),
        ((15, 10), 4, [(15, 10)]),
        ((10, 7), 4, [(10, 7)]),
        ((9, 7), 4, []),
        ((80, 56), 4, [(20, 14), (80, 56)]),
        ((45, 30), 4, [(12, 8), (45, 30)]),
        ((640, 448), 4, [(40, 28), (160, 112), (640, 448)]),
        ((80, 56), 2, [(20, 14), (40, 28), (80, 56)]),
    ],
)
def test_passes(target, own, expected):
    assert passes((10, 7), target, own) == expected


def by_hand(image, *sizes):
    """The passes of the network one by one, with the results in between filtered down."""
    for size in sizes:
        image = resize(UP(image), size)
    return image


@pytest.mark.parametrize("channels", [1, 3])
def test_beyond_its_scale_the_network_is_used_again(channels):
    image = noise(7, 9, channels)
    np.testing.assert_array_equal(UP(image, 8), by_hand(image, (14, 18), (56, 72)))
    np.testing.assert_array_equal(UP(image, 16), UP(UP(image)))
    np.testing.assert_array_equal(UP(image, 5.5), by_hand(image, (10, 13), (38, 50)))


def test_transparency_and_batches_go_the_same_way():
    image = noise(6, 5, 4)
    image[:, :3, 3] = 0
    out = UP(image, 8)
    assert out.shape == (48, 40, 4) and (out[:, 0, 3] == 0).all()
    opaque = np.concatenate([image[..., :3], np.full((6, 5, 1), 255, np.uint8)], 2)
    np.testing.assert_array_equal(UP(opaque, 8)[..., :3], UP(image[..., :3], 8))
    batch = torch.from_numpy(np.stack([noise(4, 6, 3, seed=n) for n in range(3)])).permute(
        0, 3, 1, 2
    )
    for one, each in zip(UP(batch, 9), batch, strict=True):
        assert torch.equal(one, UP(each, 9))


@pytest.mark.parametrize("channels", [1, 3])
def test_smaller_is_an_antialiased_filter_without_the_network(channels):
    image = noise(30, 40, channels)
    np.testing.assert_array_equal(UP(image, Size(width=12)), resize(image, (9, 12)))


def test_smaller_with_transparency_has_no_dark_edge():
    image = np.full((20, 20, 4), 255, np.uint8)
    image[:, :9] = 0  # black where fully transparent
    out = UP(image, Size(height=10))
    assert (out[..., :3] == 255).all() and out[0, 0, 3] == 0 and out[0, 9, 3] == 255


@pytest.mark.parametrize("scale", [8, 5.3, Size(fit=(61, 99))], ids=str)
@pytest.mark.parametrize("channels", [3, 4])
def test_streamed_rows_equal_the_full_image(tmp_path, channels, scale):
    image = Image.fromarray(noise(11, 9, channels))
    seen = []
    up = Upscaler(NET, device="cpu", dtype="fp32", tile=8)
    path = tmp_path / "a.png"
    streaming.stream_upscaled(path, up, image, scale, lambda *each: seen.append(each))
    np.testing.assert_array_equal(np.asarray(files.read(path)), np.asarray(UP(image, scale)))
    done, totals = zip(*seen, strict=True)
    assert len({*totals}) == 1 and done[-1] == totals[0] and [*done] == sorted({*done})


def test_progress_counts_all_passes():
    seen = []
    UP(noise(5, 4, 3), 8, progress=lambda *each: seen.append(each))
    assert seen[-1] == (20 + 80, 20 + 80)
    assert seen[0] == (20, 100)


def test_memory_between_passes_is_in_the_estimate():
    from espan.execution.host_memory import needed

    planes = torch.zeros(1, 3, 40, 50, dtype=torch.uint8)
    whole = needed(UP._runner, planes, (640, 800), 0)
    alone = needed(UP._runner, torch.zeros(1, 3, 160, 200, dtype=torch.uint8), (640, 800), 0)
    assert whole == alone + 3 * 160 * 200


def test_the_builtin_network_for_a_size():
    assert [nearest(each, [2, 3, 4]) for each in (1, 2.5, 4, 8, None)] == [2, 3, 4, 4, 4]
    assert nearest(Size(width=9), [2, 3, 4]) == 4
    assert nearest(Size(max_side=9, scale=2), [2, 3, 4]) == 2


def test_how_messages_and_names_call_it():
    every = [8, Size(width=9), Size(height=9), Size(fit=(9, 8)), Size(max_side=9)]
    assert [tag(each) for each in every] == ["x8", "w9", "h9", "9x8", "max9"]
    assert scale_text(every[0]) == "x8" and len({scale_text(each) for each in every}) == 5


def test_functions_take_sizes_too(tmp_path, weights):
    image = Image.fromarray(noise(6, 9, 3))
    path = files.write(tmp_path / "a.png", image)
    how = {"model": weights, "device": "cpu", "dtype": "fp32"}
    assert espan.upscale(image, Size(width=90), **how).size == (90, 60)
    written = espan.upscale(path, Size(max_side=20), **how, output=tmp_path / "b.png")
    assert Image.open(written).size == (20, 13)
    pair = espan.upscale([image, image.crop((0, 0, 2, 6))], Size(fit=(36, 36)), **how)
    assert [each.size for each in pair] == [(36, 24), (12, 36)]
