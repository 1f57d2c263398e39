"""The orthonormal 2-D DCT and the L1 norm of its coefficients in eager PyTorch: the definitions."""

import math

import torch
from torch import Tensor

_MATRICES: dict[tuple, Tensor] = {}


def matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal DCT-II matrix (n, n), made once: `matrix @ x` transforms a column."""
    key = n, dtype, device
    if torch.compiler.is_compiling():
        return _make_matrix(*key)
    if key not in _MATRICES:
        # It outlives the call: neither an inference tensor nor a fake one may stay.
        with torch.inference_mode(False):
            made = _make_matrix(*key)
        if type(made) is not Tensor:
            return made
        _MATRICES[key] = made
    return _MATRICES[key]


def _make_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi / n * torch.outer(k, k + 0.5)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows.to(device, dtype)


def wide_dtype(x: Tensor) -> torch.dtype:
    """What the transform is computed in: float32, float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)


def _transform(x: Tensor, block: int | None, inverse: bool) -> Tensor:
    h, w = x.shape[-2:]
    down, across = (matrix(int(block or n), x.dtype, x.device) for n in (h, w))
    if inverse:
        down, across = down.T, across.T
    if block is None:
        return down @ x @ across.T
    # A row is its blocks side by side, a column its blocks one below the other. Of channels_last
    # memory the products would take three times as long.
    x = (x.contiguous().unflatten(-1, (-1, across.shape[0])) @ across.T).flatten(-2)
    return (down @ x.unflatten(-2, (-1, down.shape[0]))).flatten(-3, -2)


def reference(x: Tensor, block: int | None, inverse: bool) -> Tensor:
    # Autocast would round to half precision what the caller asked in full.
    with torch.autocast(x.device.type, enabled=False):
        return _transform(x.to(wide_dtype(x)), block, inverse).to(x.dtype)


def reference_l1(
    sr: Tensor, hr: Tensor, block: int | None, with_grad: bool
) -> tuple[Tensor, Tensor]:
    """(the loss, nothing: autograd finds the gradient that a kernel returns here)"""
    wide = wide_dtype(sr)
    with torch.autocast(sr.device.type, enabled=False):
        loss = _transform(sr.to(wide) - hr.to(wide), block, False).abs().mean()
    return loss, loss.new_empty(0)
