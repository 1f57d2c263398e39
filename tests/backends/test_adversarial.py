"""Images that provoke overflow and rounding errors, through all backends; NaN, through none."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import espan
from espan import SPAN, SPANF, InputError, NonFiniteError, Upscaler
from espan.backends.cpu import CpuNetwork
from espan.backends.kernels import Plan
from espan.backends.select import backend_of
from espan_kernels import machine
from tests.support.gpu import DEVICE
from tests.support.makers import noise, random_net
from tests.support.slots import with_slots

SIZE = 21, 26
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]


def _grey(values) -> np.ndarray:
    return np.repeat(np.broadcast_to(values, SIZE)[..., None], 3, 2).astype(np.uint8)


def _with_one_pixel(value: int, others: int) -> np.ndarray:
    image = np.full((*SIZE, 3), others, np.uint8)
    image[SIZE[0] // 2, SIZE[1] // 2] = value
    return image


IMAGES = {
    "binary noise": 255 * (noise(*SIZE, 3) > 127).astype(np.uint8),
    "checkerboard": _grey(255 * ((ROWS + COLUMNS) % 2)),
    "coloured checkerboard": np.stack([(ROWS + COLUMNS + c) % 2 * 255 for c in range(3)], 2).astype(
        np.uint8
    ),
    "checkerboard of 0 and 1": _grey((ROWS + COLUMNS) % 2),
    "stripes": _grey(255 * (ROWS % 2)),
    "white": _grey(255),
    "black": _grey(0),
    "one white pixel": _with_one_pixel(255, 0),
    "one black pixel": _with_one_pixel(0, 255),
}
NETS = {
    "ESPAN": random_net(channels=32, blocks=2, last_convs=2),
    "SPAN": random_net(SPAN, channels=28, blocks=2),
    "SPANF": random_net(SPANF, channels=32, blocks=2),
}


def exactly(net, image: np.ndarray) -> np.ndarray:
    """The result by PyTorch's operators in float64, not rounded to levels."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    with torch.no_grad():
        y = type(net)(**net.config).double()
        y.load_state_dict({key: value.double() for key, value in net.state_dict().items()})
        return (255 * y(x)[0].clamp(0, 1)).permute(1, 2, 0).numpy()


# Tolerance in levels of 255: float32 sums in another order; float16 and bfloat16 round each
# feature to 11 and 8 bits.
ALLOWED = {"fp32": 0.01, "fp16": 2.0, "bf16": 20.0}


def assert_near(up: Upscaler, net, dtype: str, size=SIZE) -> None:
    """Compares all images, or a corner of a few if each pixel is slow."""
    for name, image in IMAGES.items():
        if size != SIZE and name not in ("binary noise", "checkerboard", "white"):
            continue
        image = image[: size[0], : size[1]]
        off = np.abs(up(image) - exactly(net, image))
        assert off.max() <= 0.5 + ALLOWED[dtype], f"{name}: {off.max():.2f} levels off"


@pytest.mark.parametrize("dtype", ALLOWED)
@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("kind", NETS)
def test_adversarial_images(kind, backend, dtype):
    net = NETS[kind]
    assert_near(Upscaler(net, device="cpu", dtype=dtype, backend=backend, tile=17), net, dtype)


@pytest.mark.skipif(bool(machine.no_triton()), reason=str(machine.no_triton()))
def test_adversarial_images_through_triton():
    net = random_net(channels=32)
    assert_near(Upscaler(net, device=DEVICE, dtype="fp32", backend="triton"), net, "fp32", (9, 12))


@pytest.mark.usefixtures("host_build")
def test_adversarial_images_through_cuda():
    net = random_net(channels=32)
    up = Upscaler(net, device="cpu", dtype="fp16", backend="cuda")
    with_slots(up)  # uint8 written by the tail's kernel
    assert {chosen.name for chosen in up._runner.backends[torch.float16].chosen} == {"cuda"}
    assert_near(up, net, "fp16", (9, 12))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_adversarial_images_compiled():
    net = random_net(channels=8)
    assert_near(Upscaler(net, device="cpu", dtype="fp32", backend="compile"), net, "fp32")


PIECES = ["conv_1", "blocks.0.convs.0", "blocks.0.convs.2", "conv_2", "conv_cat", "upsampler"]
BAD = st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e38, -1e38])


def poisoned(piece: str, where: int, value: float, as_bias: bool):
    net = random_net()
    layer = net.get_submodule(piece)
    values = (layer.bias if as_bias else layer.weight).data.view(-1)
    values[where % len(values)] = value
    return net


def numbers_or_an_error(up: Upscaler, image: np.ndarray) -> None:
    """Float pixels are finite; 8-bit pixels equal the rounded float pixels."""
    pixels = image.astype(np.float32) / 255
    try:
        result = up(pixels)
    except NonFiniteError:
        with pytest.raises(NonFiniteError):
            up(image)
        return
    assert np.isfinite(result).all()
    assert np.abs(up(image) - 255.0 * result).max() <= 1


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(
    piece=st.sampled_from(PIECES),
    where=st.integers(0, 10**6),
    value=BAD,
    as_bias=st.booleans(),
    backend=st.sampled_from(["auto", "eager", "plan", "slots"]),
)
def test_nothing_but_numbers_becomes_a_pixel(piece, where, value, as_bias, backend):
    """With weights that overflow somewhere, through all backends."""
    net = poisoned(piece, where, value, as_bias)
    plain = "auto" if backend == "auto" else "eager"
    up = Upscaler(net, device="cpu", dtype="fp32", backend=plain)
    if backend in ("plan", "slots"):
        up._runner.backends = {
            dtype: Plan(eager.net, "eager") for dtype, eager in up._runner.backends.items()
        }
    if backend == "slots":
        with_slots(up)
    numbers_or_an_error(up, noise(6, 7, 3))


@pytest.mark.skipif(bool(machine.no_triton()), reason=str(machine.no_triton()))
@pytest.mark.parametrize("piece", PIECES)
def test_nothing_but_numbers_becomes_a_pixel_through_triton(piece):
    net = poisoned(piece, 3, float("nan"), True)
    with pytest.raises(NonFiniteError, match="not finite"):
        Upscaler(net, device=DEVICE, dtype="fp32", backend="triton")(noise(6, 7, 3))


@pytest.mark.usefixtures("host_build")
@pytest.mark.parametrize("piece", PIECES)
def test_nothing_but_numbers_becomes_a_pixel_through_cuda(piece):
    net = random_net(channels=32)
    net.get_submodule(piece).bias.data[1] = float("nan")
    up = Upscaler(net, device="cpu", dtype="fp16", backend="cuda")
    with_slots(up)
    with pytest.raises(NonFiniteError, match="not finite"):
        up(noise(6, 7, 3))


def test_forms_of_a_network_agree_on_what_is_no_number():
    net = random_net()
    x = torch.rand(1, 3, 30, 33)
    x[0, 1, 5, 6] = float("nan")
    with torch.inference_mode():
        eager = net(x).isnan()
        assert torch.equal(CpuNetwork(net)(x).isnan(), eager)
        assert torch.equal(backend_of(net, "eager")(x).isnan(), eager)
        assert eager.any() and not eager.all()


FLOATS = [np.float16, np.float32, np.float64]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_input_that_is_no_number_is_refused_or_replaced(channels, dtype, value):
    image = noise(9, 10, channels, dtype=dtype)
    image[4, 5, channels - 1] = value
    before = image.copy()
    net = random_net()
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        espan.upscale(image, device="cpu", model=net)
    clean = image.copy()
    clean[4, 5, channels - 1] = 1 if value == np.inf else 0
    up = Upscaler(net, device="cpu", nonfinite="replace")
    np.testing.assert_array_equal(up(image), Upscaler(net, device="cpu")(clean))
    np.testing.assert_array_equal(
        espan.upscale(image, device="cpu", model=net, nonfinite="replace"), up(clean)
    )
    np.testing.assert_array_equal(image, before)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = up(torch.from_numpy(clean).permute(2, 0, 1))
    for kind in (tensor, tensor[None], [tensor]):
        with pytest.raises(NonFiniteError):
            Upscaler(net, device="cpu")(kind)
        got = up(kind)
        assert torch.equal(got if kind is tensor else got[0], expected)


def test_nonfinite_is_error_or_replace():
    with pytest.raises(InputError, match="nonfinite: expected error or replace, got 'ignore'"):
        Upscaler(random_net(), device="cpu", nonfinite="ignore")
