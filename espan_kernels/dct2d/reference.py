"""The definitions of dct2 and dct_l1 in eager PyTorch."""

import math

import torch
from torch import Tensor

_MATRICES: dict[tuple, Tensor] = {}


def matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal DCT-II matrix (n, n), cached: `matrix @ x` transforms columns."""
    key = n, dtype, device
    if torch.compiler.is_compiling():
        return _make_matrix(*key)
    if key not in _MATRICES:
        # The cache outlives the call, so it must hold neither inference nor fake tensors.
        with torch.inference_mode(False):
            result = _make_matrix(*key)
        if type(result) is not Tensor:
            return result
        _MATRICES[key] = result
    return _MATRICES[key]


def _make_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi / n * torch.outer(k, k + 0.5)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows.to(device, dtype)


def wide_dtype(x: Tensor) -> torch.dtype:
    """The dtype to compute in: float64 for float64 inputs, else float32."""
    return torch.promote_types(x.dtype, torch.float32)


def _transform(x: Tensor, block: int | None, inverse: bool) -> Tensor:
    h, w = x.shape[-2:]
    down, across = (matrix(int(block or n), x.dtype, x.device) for n in (h, w))
    if inverse:
        down, across = down.T, across.T
    if block is None:
        return down @ x @ across.T
    # Transform blocks along rows, then along columns. Without `contiguous`, products on
    # channels_last memory take three times as long.
    x = (x.contiguous().unflatten(-1, (-1, across.shape[0])) @ across.T).flatten(-2)
    return (down @ x.unflatten(-2, (-1, down.shape[0]))).flatten(-3, -2)


def reference(x: Tensor, block: int | None, inverse: bool) -> Tensor:
    # Autocast would compute in half precision.
    with torch.autocast(x.device.type, enabled=False):
        return _transform(x.to(wide_dtype(x)), block, inverse).to(x.dtype)


def reference_l1(
    sr: Tensor, hr: Tensor, block: int | None, with_grad: bool
) -> tuple[Tensor, Tensor]:
    """(loss, empty tensor): kernels return the gradient in its place, here autograd computes it."""
    wide = wide_dtype(sr)
    with torch.autocast(sr.device.type, enabled=False):
        loss = _transform(sr.to(wide) - hr.to(wide), block, False).abs().mean()
    return loss, loss.new_empty(0)
