"""Merged weights equal the original layers in float64, including the border."""

import pytest
import torch
import torch.nn.functional as F

from espan_kernels import layout
from espan_kernels.merge import add_to_centre, gate_of_half, halve, merge_tail, silu_of_half
from espan_kernels.span_gate.reference import reference as span_gate

pytestmark = pytest.mark.usefixtures("kernel_device")


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_merge_tail():
    slices = [5, 6, 4]
    xs = [normal(2, 5, 3, 7), normal(2, 8, 3, 7), normal(2, 4, 3, 7)]
    weight, bias, cat_weight, cat_bias = (
        normal(6, 8, 3, 3),
        normal(6),
        normal(9, 15, 1, 1),
        normal(9),
    )
    inner = F.conv2d(xs[1], weight, bias, padding=1)
    expected = F.conv2d(torch.cat([xs[0], inner, xs[2]], 1), cat_weight, cat_bias)
    weights, merged_bias = merge_tail(weight, bias, cat_weight, cat_bias, slices, 1)
    assert [w.shape[-1] for w in weights] == [1, 3, 1]
    parts = [F.conv2d(x, w, padding=w.shape[-1] // 2) for x, w in zip(xs, weights, strict=True)]
    close(sum(parts) + merged_bias.view(-1, 1, 1), expected)


def test_add_to_centre():
    x, weight, pointwise = normal(2, 5, 4, 3), normal(6, 5, 3, 3), normal(6, 5, 1, 1)
    expected = F.conv2d(x, weight, padding=1) + F.conv2d(x, pointwise)
    close(F.conv2d(x, add_to_centre(weight, pointwise), padding=1), expected)


def test_halved_epilogues():
    x, residual, weight, bias = (
        normal(1, 5, 6, 7),
        normal(1, 4, 6, 7),
        normal(4, 5, 3, 3),
        normal(4),
    )
    z = F.conv2d(x, weight, bias, padding=1)
    h = F.conv2d(x, *halve(weight, bias), padding=1)
    assert torch.equal(2 * h, z)
    close(silu_of_half(h), F.silu(z))
    close(gate_of_half(residual, h), span_gate(residual, z))


def test_nc8hw8_round_trip():
    for channels in (1, 8, 28, 32):
        x = normal(2, channels, 3, 5)
        planes = layout.to_nc8hw8(x)
        assert planes.shape == (2, -(-channels // 8), 3, 5, 8) and planes.is_contiguous()
        assert torch.equal(planes[1, (channels - 1) // 8, 2, 4, (channels - 1) % 8], x[1, -1, 2, 4])
        assert planes.sum().item() == pytest.approx(x.sum().item())
        assert torch.equal(layout.from_nc8hw8(planes, channels), x)


def test_packed_weights_have_equal_values():
    weight = normal(4, 5, 3, 3)
    packed = layout.pack_weight(weight)
    assert torch.equal(packed, weight)
    assert packed.stride() == (1, 4, 3 * 5 * 4, 5 * 4)
