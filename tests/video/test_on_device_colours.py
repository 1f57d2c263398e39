"""Colours converted by PyTorch's operators: against float64, and against the CPU's conversion."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support import reference420

av = pytest.importorskip("av", reason="PyAV is not installed")

from espan.video import frames, source  # noqa: E402
from espan.video.colour import CENTRE, FULL, LIMITED, Colour, Pixels, siting  # noqa: E402
from espan.video.on_device import Colours  # noqa: E402
from espan.video.packed import LAYOUTS, Packed  # noqa: E402
from espan.video.turn import Turn  # noqa: E402
from tests.support import clips  # noqa: E402

H, W = 36, 50
UPRIGHT = Turn(0, False)
LEFT, TOP_LEFT = (0.0, 0.5), (0.0, 0.0)
FORMATS = sorted({*LAYOUTS} - {"yuvj420p"})
pytestmark = [pytest.mark.parametrize("format", FORMATS)]
every_colour = pytest.mark.parametrize(
    "colour",
    [Colour(2, 2, matrix, range) for matrix in (1, 6, 9) for range in (LIMITED, FULL)],
    ids=lambda colour: f"{colour.matrix}-{'full' if colour.range == FULL else 'limited'}",
)


def empty(shape, dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype)


def colours(format: str, colour: Colour, size=(W, H), siting=CENTRE, turn=UPRIGHT):
    clip = SimpleNamespace(colour=colour, siting=siting, turn=turn)
    encoding = SimpleNamespace(format=format, width=size[0], height=size[1], colour=colour)
    return Colours(clip, encoding, torch.device("cpu"))


def white(format: str) -> int:
    return 255 if LAYOUTS[format].bits == 8 else 65535


def noise(format: str, height: int = H, width: int = W) -> np.ndarray:
    """Random RGB (3, H, W), which has the sharpest edges of chroma."""
    values = np.random.default_rng(0).integers(0, white(format) + 1, (3, height, width))
    return values.astype(np.uint8 if white(format) == 255 else np.uint16)


def frame_of(image: np.ndarray, format: str, colour: Colour):
    """The CPU's frame of RGB (3, H, W)."""
    return Pixels(colour).frame(
        np.ascontiguousarray(image.transpose(1, 2, 0)), av.VideoFormat(format)
    )


def levels(packed: Packed) -> list[np.ndarray]:
    """Luma and chroma in levels, float64."""
    return [each.numpy() / LAYOUTS[packed.format].level for each in packed.planes()]


def reference(format: str, colour: Colour) -> tuple:
    return LAYOUTS[format].bits, colour.matrix, colour.range == FULL


def as_rgb(packed: Packed, *how, **more) -> np.ndarray:
    return colours(packed.format, *how, **more).rgb(packed).numpy().astype(float)


def test_planes_lie_as_in_pyav(format):
    frame = frame_of(noise(format), format, clips.TAGGED)
    packed = Packed.of(frame, empty)
    values = packed.values.numpy()
    assert values.nbytes == W * H * 3 // 2 * values.itemsize
    dtype = values.dtype
    theirs = [np.frombuffer(each, dtype).reshape(each.height, -1) for each in frame.planes]
    luma, chroma = packed.planes()
    np.testing.assert_array_equal(luma, theirs[0][:, :W])
    if LAYOUTS[format].paired:
        both = [theirs[1][:, at:W:2] for at in (0, 1)]
    else:
        both = [plane[:, : W // 2] for plane in theirs[1:]]
    np.testing.assert_array_equal(chroma, both)
    assert torch.equal(Packed.of(packed.frame(), empty).values, packed.values)


@every_colour
@pytest.mark.parametrize("siting", [CENTRE, LEFT, TOP_LEFT])
def test_rgb_is_that_of_float64(format, colour, siting):
    packed = Packed.of(frame_of(noise(format), format, colour), empty)
    exact = reference420.to_rgb(*levels(packed), *reference(format, colour), siting)
    got = as_rgb(packed, colour, siting=siting)
    assert np.abs(got - exact * white(format)).max() <= 0.5 + 1e-6 * white(format)


@every_colour
def test_planes_are_those_of_float64(format, colour):
    image = noise(format)
    made = colours(format, colour).packed(torch.from_numpy(image))
    exact = reference420.from_rgb(image / white(format), *reference(format, colour))
    for got, want in zip(levels(made), exact, strict=True):
        np.testing.assert_array_equal(got, np.round(got))
        assert np.abs(got - want).max() <= 0.5 + 1e-3


@every_colour
def test_both_directions_agree_with_the_cpu(format, colour):
    """Smooth content, to a level of 8 bits; also at the image's border.

    Of 10 bits swscale rounds the chroma of each pixel, after weights of 12 bits.
    """
    deep = white(format) > 255
    image = clips.image(3, 48, 64, deep)
    frame = frame_of(image.transpose(2, 0, 1), format, colour)
    packed = Packed.of(frame, empty)
    error = as_rgb(packed, colour, size=(64, 48)) - Pixels(colour).rgb(frame).transpose(2, 0, 1)
    assert np.abs(error).max() <= (1.2 * 257 if deep else 1)
    assert np.abs(error.mean((1, 2))).max() <= white(format) / 255 * 0.05
    made = colours(format, colour, (64, 48)).packed(torch.from_numpy(image).permute(2, 0, 1))
    for got, want in zip(levels(made), levels(packed), strict=True):
        assert np.abs(got - want).max() <= 1
        assert np.abs((got - want).mean((-2, -1))).max() <= 0.1


@every_colour
def test_even_noise_agrees_with_the_cpu(format, colour):
    frame = frame_of(noise(format), format, colour)
    error = as_rgb(Packed.of(frame, empty), colour) - Pixels(colour).rgb(frame).transpose(2, 0, 1)
    assert np.abs(error).max() <= 2 * white(format) / 255
    made = colours(format, colour).packed(torch.from_numpy(noise(format)))
    for got, want in zip(levels(made), levels(Packed.of(frame, empty)), strict=True):
        assert np.abs(got - want).max() <= 1


@every_colour
def test_flat_colours_are_exact(format, colour):
    """All that return in float64 with whole levels, among greys and random colours."""
    rng = np.random.default_rng(1)
    greys = np.repeat(np.arange(0, 256, 5)[:, None], 3, 1)
    returned = 0
    convert = colours(format, colour, (4, 4))
    for value in np.concatenate([greys, rng.integers(0, 256, (50, 3))]) * (white(format) // 255):
        flat = np.broadcast_to(value[:, None, None], (3, 4, 4))
        planes = reference420.from_rgb(flat / white(format), *reference(format, colour))
        whole = [np.round(each) for each in planes]
        back = reference420.to_rgb(*whole, *reference(format, colour)) * white(format)
        near = max(np.abs(np.abs(each % 1) - 0.5).min() < 0.01 for each in (*planes, back))
        if near or (np.round(back) != flat).any():
            continue
        returned += 1
        image = torch.from_numpy(flat.astype(noise(format).dtype))
        made = convert.packed(image)
        for got, want in zip(levels(made), whole, strict=True):
            np.testing.assert_array_equal(got, want)
        assert torch.equal(convert.rgb(made), image)
    assert returned >= (1 if white(format) > 255 else 20)  # 65535 colours do not fit 1024 levels


@pytest.mark.parametrize("depth", [8, 10])
def test_the_depths_of_input_and_output_may_differ(format, depth):
    image = clips.image(2, 48, 64, depth > 8)
    pixels = Pixels(clips.TAGGED)
    want = Packed.of(pixels.frame(image, av.VideoFormat(format)), empty)
    made = colours(format, clips.TAGGED, (64, 48)).packed(torch.from_numpy(image).permute(2, 0, 1))
    for got, each in zip(levels(made), levels(want), strict=True):
        assert np.abs(got - each).max() <= 1


@pytest.mark.parametrize("turn", [Turn(q, m) for q in range(4) for m in (False, True)], ids=str)
def test_turned_frames_are_upright(format, turn):
    packed = Packed.of(frame_of(noise(format), format, clips.TAGGED), empty)
    plain = as_rgb(packed, clips.TAGGED).transpose(1, 2, 0)
    got = as_rgb(packed, clips.TAGGED, turn=turn).transpose(1, 2, 0)
    np.testing.assert_array_equal(got, turn(plain))


CLIPS = {  # where each encoder's decoder says that chroma lies
    "ffv1": (CENTRE, {}),
    "libx264": (LEFT, {"crf": "0"}),
    "libx265": (LEFT, {"x265-params": "lossless=1:log-level=error"}),
    "libx265 2": (TOP_LEFT, {"x265-params": "lossless=1:log-level=error:chromaloc=2"}),
}


@pytest.mark.parametrize("coded", CLIPS)
def test_chroma_lies_where_the_tag_says(tmp_path, format, coded):
    (where, options), codec = CLIPS[coded], coded.split()[0]
    if codec not in av.codecs_available:
        pytest.skip(f"{codec} is not in this PyAV")
    if LAYOUTS[format].paired:
        pytest.skip("a format of hardware decoders")
    path = clips.make(tmp_path / "a.mkv", 1, codec=codec, format=format, options=options)
    clip = source.probe(path)
    assert clip.siting == where == siting(clips.frames(path)[0])
    (cpu,), (packed,) = frames.read(clip), frames.read(clip, empty=empty)
    got = as_rgb(packed.image, clip.colour, siting=clip.siting).transpose(1, 2, 0)
    assert np.abs(got - cpu.image).max() <= (1.2 * 257 if white(format) > 255 else 1)
