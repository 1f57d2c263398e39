"""Exact weight transformations that merge layers for the ops: pure functions."""

import torch
from torch import Tensor


def merge_tail(
    weight: Tensor, bias: Tensor, cat_weight: Tensor, cat_bias: Tensor, slices, merged: int
) -> tuple[list[Tensor], Tensor]:
    """Merges a conv, a concatenation and a 1x1 conv into a sum of convs, as op `tail` computes it.

    `conv2d(cat([x_0, .., conv2d(x_m, weight, bias, padding=1), ..]), cat_weight, cat_bias)`, with
    m = `merged` and slices[i] channels in x_i, equals `sum(conv2d(x_i, w_i, padding=k_i // 2)) + b`
    for the returned ([w_0, ..], b): w_m is 3x3, the others 1x1. This holds at the border too,
    because the 1x1 conv follows the padded one and needs no padding. Shapes: weight
    (slices[m], C, 3, 3), bias, cat_weight (out, sum(slices), 1, 1), cat_bias (out,).
    """
    weights = list(cat_weight.split(list(slices), dim=1))
    after = weights[merged][:, :, 0, 0]
    weights[merged] = torch.einsum("om,mihw->oihw", after, weight)
    return weights, cat_bias + after @ bias


def add_to_centre(weight: Tensor, weight_1x1: Tensor) -> Tensor:
    """The 3x3 weight equal to `conv2d(x, weight, padding=1) + conv2d(x, weight_1x1)`."""
    centre = torch.zeros_like(weight)
    centre[:, :, 1:2, 1:2] = weight_1x1
    return weight + centre


def halve(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Halves (exactly) the conv before a sigmoid, so that it outputs h = z / 2.

    The epilogues `silu_of_half` and `gate_of_half` then need one tanh.
    """
    return weight / 2, bias / 2


def silu_of_half(h: Tensor) -> Tensor:
    """silu(z) for h = z / 2: z * sigmoid(z) = h * (1 + tanh(h))."""
    return h + h * torch.tanh(h)


def gate_of_half(x: Tensor, h: Tensor) -> Tensor:
    """span_gate(x, z) for h = z / 2: (z + x) * (sigmoid(z) - 1/2) = (h + x/2) * tanh(h)."""
    return (h + x / 2) * torch.tanh(h)
