"""Muon: momentum whose direction is orthogonalised, for the kernels of convolutions.

Source of the method and its constants: Keller Jordan et al., "Muon: an optimizer for hidden
layers in neural networks", 2024. torch.optim.Muon takes matrices only; here a kernel
(out, in, k, k) counts as the matrix (out, in * k * k).
"""

from collections import defaultdict

import torch
from torch import Tensor

# Quintic whose iteration drives every singular value towards 1; five steps reach 0.7 .. 1.2.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """Nearly the U V^T of each matrix U S V^T, by Newton-Schulz.  (N, rows, columns)."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * square @ square) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """lr: root mean square of the change of a weight in one step, whatever the gradient's size.

    decay: share of itself, times lr, that a weight loses in a step. Every gradient enters the
    momentum with norm 1: since the step's size does not depend on it either, one extreme batch
    would otherwise set the direction of the next twenty steps.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            # Kernels of one shape are orthogonalised together.
            by_shape = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[weight.shape].append(weight)
            for weights in by_shape.values():
                updates = torch.stack([self._momentum(w, group["momentum"]) for w in weights])
                updates = orthogonalised(updates.flatten(2))
                updates *= group["lr"] / updates.square().mean((1, 2), keepdim=True).sqrt()
                for weight, update in zip(weights, updates, strict=True):
                    weight *= 1 - group["lr"] * group["decay"]
                    weight -= update.view_as(weight)

    def _momentum(self, weight: Tensor, momentum: float) -> Tensor:
        """Nesterov's: the gradient, and the momentum as it will be after it."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight, memory_format=torch.contiguous_format)
        direction = weight.grad / (weight.grad.norm() + 1e-12)
        state["momentum"].mul_(momentum).add_(direction)
        return direction + momentum * state["momentum"]
