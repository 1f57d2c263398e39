"""Layers on a CPU against float64: sizes, channels, epilogues, borders, memory, threads.

Every test runs on every unit of this processor, in the unit's dtype.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from espan_kernels import cpu
from espan_kernels.cpu import GROUP, MAX_CHANNELS, TAP, Layer, Place, pack, pack_bias, run

DTYPES = {unit: dtype for dtype, units in cpu.UNITS.items() for unit in units}
UNITS = [
    pytest.param(
        unit,
        marks=pytest.mark.skipif(
            not (cpu.MODULE and cpu.MODULE.has(unit)), reason=cpu.REASON or f"no {unit} here"
        ),
    )
    for unit in DTYPES
]
pytestmark = pytest.mark.parametrize("unit", UNITS)
# Allowed errors against float64. A bfloat16 keeps 8 bits; torch's own convolution rounds once more
# before the epilogue. In float32 each of up to 576 additions to a sum of about 10 rounds by 5e-7.
CLOSE = {torch.bfloat16: {"rtol": 2**-8, "atol": 1e-3}, torch.float32: {"rtol": 2e-6, "atol": 2e-5}}


def assert_close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got.double(), want, **CLOSE[got.dtype])


class Map:
    """An image (H, W, C) with a border of zeros in memory, and where its pixels are."""

    def __init__(
        self,
        unit: str,
        height: int,
        width: int,
        channels: int,
        values: Tensor | None = None,
        border: int = 1,
    ):
        self.size, self.unit = (height, width, channels), unit
        self.row = (width + border) * channels
        self.first = border * (self.row + channels)
        behind = (width - width % GROUP + 2 * GROUP) * channels + TAP
        elements = self.first + (height + border) * self.row + behind
        self.memory = torch.zeros(elements, dtype=DTYPES[unit])
        self.values = self.memory.as_strided(self.size, (self.row, channels, 1), self.first)
        if values is not None:
            self.values.copy_(values)

    def place(self, rows: int = 0, columns: int = 0, channel: int = 0, values: int = TAP) -> Place:
        element = self.first + rows * self.row + columns * self.size[2] + channel
        address = self.memory.data_ptr() + self.memory.itemsize * element
        return Place(address, self.row, self.size[2], values)


def convolution(source: Map, weight: Tensor, bias: Tensor, out: Place, **more) -> Layer:
    """A layer of the convolution of a map with a weight (channels, C, k, k), tap by tap."""
    taps, matrices = [], []
    k = weight.shape[2]
    for row in range(k):
        for column in range(k):
            for first in range(0, source.size[2], TAP):
                matrix = weight[:, first : first + TAP, row, column].t()
                taps.append(source.place(row - k // 2, column - k // 2, first, len(matrix)))
                matrices.append(matrix)
    height, width, _ = source.size
    sizes = height, width, k // 2
    packed = pack(matrices, DTYPES[source.unit])
    return Layer(taps, packed, pack_bias(bias), len(bias), out, *sizes, **more)


def sample(unit: str, height: int, width: int, channels: int, made: int, seed: int = 0):
    """(a map, a weight, a bias), with biases so large that a border of anything but zeros shows."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(DTYPES[unit])

    weight = normal(made, channels, 3, 3) / (3 * channels**0.5)
    image = Map(unit, height, width, channels, normal(height, width, channels))
    return image, weight, normal(made) * 3


def expected(source: Map, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution (H, W, channels) in float64."""
    x = source.values.double().permute(2, 0, 1)[None]
    return F.conv2d(x, weight.double(), bias.double(), padding=1)[0].permute(1, 2, 0)


def gated(y: Tensor, gate: Tensor) -> Tensor:
    return (y + gate) * (y.sigmoid() - 0.5)


SIZES = [(1, 1), (3, 31), (5, 32), (4, 33), (9, 70), (2, 257)]


@pytest.mark.parametrize("epilogue", ["none", "silu", "gate"])
@pytest.mark.parametrize("channels", [3, 8, 16, 28, 32, 33, 48, 52, 64])
def test_equals_float64(unit, channels, epilogue):
    for height, width in SIZES:
        source, weight, bias = sample(unit, height, width, channels, channels)
        gate = sample(unit, height, width, channels, 1, seed=1)[0]
        out = Map(unit, height, width, channels)
        places = {"gate": gate.place()} if epilogue == "gate" else {}
        layer = convolution(source, weight, bias, out.place(), epilogue=epilogue, **places)
        before = out.memory.clone()
        run([layer], 2, unit)
        want = expected(source, weight, bias)
        if epilogue == "silu":
            want = F.silu(want)
        if epilogue == "gate":
            want = gated(want, gate.values.double())
        assert_close(out.values, want)
        out.values.zero_()
        assert out.memory.equal(before), "written outside of the image"


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_shuffles(unit, scale):
    for height, width in SIZES:
        source, weight, bias = sample(unit, height, width, 32, 3 * scale**2)
        want = expected(source, weight, bias).reshape(height, width, scale, scale, 3)
        want = want.transpose(1, 2).flatten(2, 3).flatten(0, 1)
        guarded = torch.full((scale * height + 2, scale * width, 3), 77, dtype=DTYPES[unit])
        out = guarded[1:-1]
        place = Place(out.data_ptr(), out.stride(0), out.stride(1))
        run([convolution(source, weight, bias, place, epilogue="shuffle", scale=scale)], 2, unit)
        assert_close(out, want)
        assert (guarded[[0, -1]] == 77).all()


def test_taps_of_several_maps_and_of_whole_rows(unit):
    """A 3x3 convolution of 8 channels as three taps of 24 numbers, and a 1x1 one of another map."""
    source, weight, bias = sample(unit, 6, 40, 8, 20)
    other, single, _ = sample(unit, 6, 40, 32, 20, seed=1)
    taps = [source.place(row - 1, -1) for row in range(3)] + [other.place()]
    matrices = [weight[:, :, row].permute(2, 1, 0).flatten(0, 1) for row in range(3)]
    out = Map(unit, 6, 40, 20)
    matrices.append(single[:, :, 1, 1].t())
    layer = Layer(taps, pack(matrices, DTYPES[unit]), pack_bias(bias), 20, out.place(), 6, 40, 1)
    run([layer], 1, unit)
    want = expected(source, weight, bias) + other.values.double() @ single[:, :, 1, 1].double().t()
    assert_close(out.values, want)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_give_the_same_bits_and_wait_for_each_other(unit, threads):
    """Sixteen layers in two maps, each of which reads rows that other threads have just made."""
    source, weight, bias = sample(unit, 37, 45, 32, 32)
    results = []
    for count in (1, threads, threads):
        maps = [Map(unit, 37, 45, 32, source.values), Map(unit, 37, 45, 32)]
        layers = [
            convolution(maps[i % 2], weight, bias / 8, maps[1 - i % 2].place(), epilogue="silu")
            for i in range(16)
        ]
        run(layers, count, unit)
        results.append(maps[0].memory)
    assert results[0].equal(results[1]) and results[0].equal(results[2])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("height", [1, 5, 37, 130])
def test_layers_together_equal_layers_one_by_one(unit, height, threads):
    """In two maps in turn: a layer overwrites what the layer before it reads, at any reach."""
    random = torch.Generator().manual_seed(0)
    start = torch.randn(height, 20, 16, generator=random)
    sizes = [9, 1, 3, 1, 1, 9, 9, 1, 3, 3, 5, 1, 9, 3]
    weights = [torch.randn(16, 16, k, k, generator=random) / (4 * k) for k in sizes]
    results = []
    for together in (True, False):
        maps = [Map(unit, height, 20, 16, start, border=4), Map(unit, height, 20, 16, border=4)]
        layers = [
            convolution(maps[i % 2], weight, torch.ones(16), maps[1 - i % 2].place())
            for i, weight in enumerate(weights)
        ]
        for part in [layers] if together else [[layer] for layer in layers]:
            run(part, threads, unit)
        results.append(torch.cat([each.memory for each in maps]))
    assert results[0].equal(results[1]) and results[0].isfinite().all()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("width", [1, 4, 5, 16, 37])
def test_bytes(unit, channels, width):
    """Values around 0..1, halves to even, into a window of a larger image."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(-1, 515, (9, width, 3), generator=generator) / 510
    y[0, 0] = torch.tensor([-3e38, 3e38, 0.5])
    y = y.to(DTYPES[unit])
    memory = torch.full((11, width + 2, channels), 77, dtype=torch.uint8)
    out = memory[1:-1, 1:-1]
    assert cpu.takes_bytes(y, out) and cpu.to_bytes(y, out, 3)
    want = (255 * y.float()).round().clamp(0, 255)
    assert out[..., :3].equal(want.byte()) and (out[..., 3:] == 255).all()
    out.fill_(77)
    assert (memory == 77).all(), "written outside of the window"
    for value in (float("nan"), float("inf"), -float("inf")):
        y[8, width - 1, 2] = value
        assert not cpu.to_bytes(y, out, 2)


def test_bytes_are_for_pixels_without_gaps(unit):
    y, out = torch.zeros(4, 4, 3, dtype=DTYPES[unit]), torch.zeros(4, 4, 3, dtype=torch.uint8)
    assert cpu.takes_bytes(y, out)
    assert not cpu.takes_bytes(y.half(), out) and not cpu.takes_bytes(y, out.int())
    assert not cpu.takes_bytes(y.transpose(0, 1), out) and not cpu.takes_bytes(
        y, out.transpose(0, 1)
    )
    assert not cpu.takes_bytes(y, out[..., :1])


@pytest.mark.parametrize("epilogue", ["silu", "gate"])
def test_large_and_small_numbers(unit, epilogue):
    """The sigmoid at its ends, and numbers as large as there are."""
    numbers = torch.tensor([0, -0.0, 1e-30, -1e-30, 20, -20, 88, -88, 104, -104, 3e38, -3e38])
    values = numbers.to(DTYPES[unit]).expand(1, 1, 12).contiguous()
    source, out = Map(unit, 1, 1, 12, values), Map(unit, 1, 1, 12)
    gate = Map(unit, 1, 1, 12)
    weight = torch.zeros(12, 12, 3, 3)
    weight[:, :, 1, 1] = torch.eye(12)
    more = {"gate": gate.place()} if epilogue == "gate" else {}
    layer = convolution(source, weight, torch.zeros(12), out.place(), epilogue=epilogue, **more)
    run([layer], 1, unit)
    y = values.double()
    want = F.silu(y) if epilogue == "silu" else gated(y, torch.zeros(()))
    rtol = 2**-7 if DTYPES[unit] == torch.bfloat16 else 1e-6
    torch.testing.assert_close(out.values.double(), want, rtol=rtol, atol=1e-30)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 0},
        {"channels": MAX_CHANNELS + 1},
        {"height": 0},
        {"width": 0},
        {"reach": -1},
        {"taps": []},
        {"taps": [Place(0, 0, 0, 0)]},
        {"taps": [Place(0, 0, 0, TAP + 1)]},
        {"epilogue": "shuffle", "scale": 2},
        {"epilogue": "relu"},
    ],
    ids=str,
)
def test_layers_that_cannot_be_are_refused(unit, change):
    source, weight, bias = sample(unit, 4, 4, 8, 8)
    layer = convolution(source, weight, bias, Map(unit, 4, 4, 8).place())
    why = "epilogue: relu" if change.get("epilogue") == "relu" else "a layer that cannot be"
    with pytest.raises(ValueError, match=why):
        run([Layer(**(vars(layer) | change))], 1, unit)


def test_layers_of_different_heights_are_refused(unit):
    source, weight, bias = sample(unit, 4, 4, 8, 8)
    layer = convolution(source, weight, bias, Map(unit, 4, 4, 8).place())
    with pytest.raises(ValueError, match="different heights"):
        run([layer, Layer(**(vars(layer) | {"height": 3}))], 1, unit)


def test_wrong_threads_and_units_are_refused(unit):
    run([], 1, unit)
    with pytest.raises(ValueError, match="unit, threads"):
        run([], 0, unit)
    with pytest.raises(ValueError, match="unit: mmx"):
        run([], 1, "mmx")
