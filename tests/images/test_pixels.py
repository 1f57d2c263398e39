"""Conversion of pixels to network input and back: every dtype and layout, and NaN."""

import pytest
import torch

from espan.images import pixels
from espan.images.pixels import (
    WHITE,
    from_network_output,
    from_network_output_on_device,
    to_network_input,
)

DTYPES = [*WHITE]


def made(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = values * WHITE[dtype]
    return (values if dtype.is_floating_point else values.round()).to(dtype)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_to_network_input(dtype, channels):
    x = made(dtype, 2, channels, 4, 5)
    y = to_network_input(x, torch.device("cpu"), torch.float32)
    assert y.shape == (2, 3, 4, 5) and y.is_contiguous(memory_format=torch.channels_last)
    expected = (x.double() / WHITE[dtype]).expand(-1, 3, -1, -1)
    torch.testing.assert_close(y.double(), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_strips_scale_with_threads(monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    y = torch.rand(1, 3, 300, 400)
    out = torch.empty((1, 3, 300, 400), dtype=torch.uint8)
    assert from_network_output(y.clone(), out)
    assert torch.equal(out, (y * 255).round().to(torch.uint8))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_from_network_output(monkeypatch, dtype, channels, memory):
    monkeypatch.setattr(pixels, "STRIP", 50)  # a row or two at a time
    y = made(torch.float32, 2, 3, 7, 6) * 1.5 - 0.25
    expected = y.double() if channels == 3 else y.double().mean(1, keepdim=True)
    expected = expected.clamp(0, 1) * WHITE[dtype]
    out = torch.zeros((2, channels, 9, 9), dtype=dtype).contiguous(memory_format=memory)
    on_device, finite = from_network_output_on_device(y, channels, dtype)
    assert from_network_output(y.contiguous(memory_format=memory), out[:, :, 1:8, 2:8]) and finite
    step = 0.5 if not dtype.is_floating_point else torch.finfo(dtype).eps
    for result in (out[:, :, 1:8, 2:8], on_device):
        assert result.dtype == dtype
        assert (result.double() - expected).abs().max() <= step + 2e-7 * WHITE[dtype]
    assert out.double().sum() == out[:, :, 1:8, 2:8].double().sum(), "written outside the window"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_nonfinite_output_is_detected_anywhere(monkeypatch, dtype, value):
    monkeypatch.setattr(pixels, "STRIP", 50)
    out = torch.zeros((1, 3, 7, 6), dtype=torch.uint8)
    for y, x in [(0, 0), (3, 2), (6, 5)]:
        numbers = torch.zeros((1, 3, 7, 6), dtype=dtype)
        numbers[0, 1, y, x] = value
        assert not from_network_output_on_device(numbers, 3, torch.uint8)[1]
        assert not from_network_output(numbers, out)


def test_finite_output_whose_sum_overflows():
    y = torch.full((1, 3, 4, 4), 3e38)
    out = torch.zeros((1, 3, 4, 4), dtype=torch.uint8)
    assert from_network_output_on_device(y, 3, torch.uint8)[1]
    assert from_network_output(y, out) and (out == 255).all()
