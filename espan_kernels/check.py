"""Checks of arguments, shared by the ops: a ValueError that names op, argument, expected, got."""

import torch
from torch import Tensor


def expect(ok: bool, op: str, argument: str, expected: str, got) -> None:
    """ValueError unless `ok`."""
    if not ok:
        raise ValueError(f"{op}: {argument}: expected {expected}, got {got}")


def picture(op: str, argument: str, x: Tensor, channels: int | None = None, uint8=False) -> None:
    """(N, C, H, W), `channels` of them if given; floating point, with uint8=True uint8 as well."""
    expect(isinstance(x, Tensor), op, argument, "a tensor", type(x).__name__)
    expect(x.dim() == 4, op, argument, "4 dimensions (N, C, H, W)", f"shape {tuple(x.shape)}")
    if not (uint8 and x.dtype == torch.uint8):
        expected = "floating point or uint8" if uint8 else "floating point"
        expect(x.is_floating_point(), op, argument, expected, x.dtype)
    if channels is not None:
        expect(x.shape[1] == channels, op, argument, f"{channels} channels", x.shape[1])


def conv(op: str, argument: str, weight: Tensor, bias: Tensor, kernel: int, channels: int) -> None:
    """`weight` (out, channels, kernel, kernel) and `bias` (out,) of a convolution."""
    expect(isinstance(weight, Tensor), op, argument, "a tensor", type(weight).__name__)
    shape = tuple(weight.shape)
    expected = f"shape (out, {channels}, {kernel}, {kernel})"
    expect(
        len(shape) == 4 and shape[1:] == (channels, kernel, kernel), op, argument, expected, shape
    )
    argument = argument.replace("weight", "bias")
    expect(isinstance(bias, Tensor), op, argument, "a tensor", type(bias).__name__)
    expect(bias.shape == shape[:1], op, argument, f"shape ({shape[0]},)", tuple(bias.shape))


def alike(op: str, argument: str, x: Tensor, *others: Tensor) -> None:
    """All of one device and dtype; `argument` is the name of `x`, which sets them."""
    for other in others:
        if other.device != x.device or other.dtype != x.dtype:
            expected = f"one device and dtype for all, those of {argument} ({x.device}, {x.dtype})"
            raise ValueError(f"{op}: expected {expected}, got {other.device}, {other.dtype}")
