"""Exact rewritings of a network's weights for the ops: pure functions on (weight, bias)."""

import torch
from torch import Tensor


def merge_tail(
    weight: Tensor, bias: Tensor, cat_weight: Tensor, cat_bias: Tensor, slices, merged: int
) -> tuple[list[Tensor], Tensor]:
    """A conv, then a concatenation, then a 1x1 conv, as one sum of convs: `tail`'s weights.

    `conv2d(cat([x_0, .., conv2d(x_m, weight, bias, padding=1), ..]), cat_weight, cat_bias)`, m =
    `merged` and x_i of slices[i] channels, equals `sum(conv2d(x_i, w_i, padding=k_i // 2)) + b`
    for the ([w_0, ..], b) returned: w_m is 3x3, the others 1x1. Exact at the border as well: the
    1x1 conv comes after the padded one and pads nothing. weight (slices[m], C, 3, 3), bias,
    cat_weight (out, sum(slices), 1, 1), cat_bias (out,).
    """
    weights = list(cat_weight.split(list(slices), dim=1))
    after = weights[merged][:, :, 0, 0]
    weights[merged] = torch.einsum("om,mihw->oihw", after, weight)
    return weights, cat_bias + after @ bias


def add_to_centre(weight: Tensor, weight_1x1: Tensor) -> Tensor:
    """The 3x3 kernel of `conv2d(x, weight, padding=1) + conv2d(x, weight_1x1)`."""
    centre = torch.zeros_like(weight)
    centre[:, :, 1:2, 1:2] = weight_1x1
    return weight + centre


def halve(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The conv before a sigmoid, times 1/2 (exact): its output is then h = z / 2.

    In h the epilogues need one tanh: `silu_of_half`, `gate_of_half`.
    """
    return weight / 2, bias / 2


def silu_of_half(h: Tensor) -> Tensor:
    """silu(z) for h = z / 2, as z * sigmoid(z) = h * (1 + tanh(h))."""
    return h + h * torch.tanh(h)


def gate_of_half(x: Tensor, h: Tensor) -> Tensor:
    """span_gate(x, z) for h = z / 2, as (z + x) * (sigmoid(z) - 1/2) = (h + x/2) * tanh(h)."""
    return (h + x / 2) * torch.tanh(h)
