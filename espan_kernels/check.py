"""Argument checks shared by the ops. A ValueError names the op, the argument, expected and got.

They run in every call, so messages are built only on failure.
"""

import torch
from torch import Tensor


def error(op: str, argument: str, expected: str, got) -> ValueError:
    """The error that all checks raise."""
    return ValueError(f"{op}: {argument}: expected {expected}, got {got}")


def tensor(op: str, argument: str, x) -> None:
    """Accepts any tensor."""
    if not isinstance(x, Tensor):
        raise error(op, argument, "a tensor", type(x).__name__)


def image(op: str, argument: str, x: Tensor, channels: int | None = None, uint8=False) -> None:
    """Accepts (N, C, H, W), C == `channels` if given; floating point, or uint8 with uint8=True."""
    tensor(op, argument, x)
    if x.dim() != 4:
        got = f"shape {tuple(x.shape)}"
        raise error(op, argument, "4 dimensions (N, C, H, W)", got)
    if not x.is_floating_point() and not (uint8 and x.dtype == torch.uint8):
        raise error(op, argument, "floating point or uint8" if uint8 else "floating point", x.dtype)
    if channels is not None and x.size(1) != channels:
        raise error(op, argument, f"{channels} channels", x.size(1))


def weight(op: str, argument: str, w: Tensor, kernel: int, channels: int, out=None) -> None:
    """Accepts a convolution weight (out, channels, kernel, kernel); any `out` if None."""
    tensor(op, argument, w)
    shape = tuple(w.shape)
    if len(shape) != 4 or shape != (out or shape[0], channels, kernel, kernel):
        expected = f"shape ({out or 'out'}, {channels}, {kernel}, {kernel})"
        raise error(op, argument, expected, shape)


def bias(op: str, argument: str, b: Tensor, channels: int) -> None:
    """Accepts a convolution bias (channels,)."""
    tensor(op, argument, b)
    if b.dim() != 1 or b.size(0) != channels:
        raise error(op, argument, f"shape ({channels},)", tuple(b.shape))


def same_device_and_dtype(op: str, names: str, x: Tensor, *others: Tensor) -> None:
    """Accepts tensors with the device and dtype of `x`. names: space-separated, x first."""
    device, dtype = x.device, x.dtype
    for i, other in enumerate(others, 1):
        if other.device != device or other.dtype != dtype:
            first, name = names.split()[0], names.split()[i]
            expected = f"device and dtype of {first} ({device}, {dtype})"
            raise error(op, name, expected, f"{other.device}, {other.dtype}")
