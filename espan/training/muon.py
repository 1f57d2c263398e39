"""Muon, an optimizer with orthogonalised momentum, for the kernels of convolutions.

Method and constants: Keller Jordan et al., "Muon: an optimizer for hidden layers in neural
networks", 2024. torch.optim.Muon takes matrices only; here a kernel (out, in, k, k) is treated as
the matrix (out, in * k * k).
"""

from collections import defaultdict

import torch
from torch import Tensor

# A quintic whose iteration moves all singular values towards 1; five steps reach 0.7 .. 1.2.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """Approximates U V^T of each matrix U S V^T (N, rows, columns), by Newton-Schulz.

    Each iteration multiplies by a polynomial of the Gram matrix of the short side, so wide matrices
    cost little more.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.mT
    one = torch.eye(gram.shape[1], device=x.device, dtype=x.dtype)
    product = one
    for _ in range(_STEPS):
        factor = _A * one + _B * gram + _C * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """The Muon optimizer.

    lr: root mean square of the change of a weight in one step, independent of the gradient's size.
    decay: weight decay per step, times lr. Gradients are normalised before they enter the momentum:
    otherwise one extreme batch would set the direction of the next twenty steps.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # takes no closure
        for group in self.param_groups:
            # Kernels of one shape run as a batch.
            by_shape = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[weight.shape].append(weight)
            for weights in by_shape.values():
                updates = orthogonalised(self._directions(weights, group["momentum"]).flatten(2))
                updates *= group["lr"] / updates.square().mean((1, 2), keepdim=True).sqrt()
                torch._foreach_mul_(weights, 1 - group["lr"] * group["decay"])
                torch._foreach_sub_(weights, [u.view_as(weights[0]) for u in updates])

    def _directions(self, weights: list[Tensor], momentum: float) -> Tensor:
        """Updates the momentum; returns Nesterov's directions (N, out, in, k, k)."""
        moments = []
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight, memory_format=torch.contiguous_format)
            moments.append(state["momentum"])
        gradients = torch.stack([weight.grad for weight in weights if weight.grad is not None])
        gradients /= torch.linalg.vector_norm(gradients, dim=(1, 2, 3, 4), keepdim=True) + 1e-12
        torch._foreach_mul_(moments, momentum)
        torch._foreach_add_(moments, list(gradients))
        return gradients.add_(torch.stack(moments), alpha=momentum)
