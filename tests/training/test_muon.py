"""Muon steps have the direction from a singular value decomposition and the given size."""

import copy

import pytest
import torch

from espan.training.muon import Muon, orthogonalised
from espan.training.optim import overflow_together


@pytest.mark.parametrize("shape", [(3, 32, 288), (2, 8, 72), (3, 40, 5), (2, 16, 16)])
def test_orthogonalised_has_the_singular_vectors_and_values_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(shape, generator=generator)
    u, s, vt = torch.linalg.svd(matrices, full_matrices=False)
    inside = u.mT @ orthogonalised(matrices) @ vt.mT
    values = torch.diagonal(inside, dim1=1, dim2=2)
    assert (inside - torch.diag_embed(values)).abs().max() < 1e-3
    assert values[s > 0.05 * s[:, :1]].min() > 0.6 and values.max() < 1.3


def test_wide_and_tall_ill_conditioned_ones_agree_with_float64():
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(2, 16, 144, generator=generator)
    matrices = torch.logspace(0, -5, 16)[:, None] * matrices
    exact = orthogonalised(matrices.double())
    assert (orthogonalised(matrices) - exact).abs().max() < 2e-3 * exact.abs().max()
    assert torch.allclose(orthogonalised(matrices.mT), orthogonalised(matrices).mT)


def test_a_step_has_the_size_of_the_rate_whatever_the_gradient_is():
    torch.manual_seed(0)
    weights = [torch.randn(8, 4, 3, 3, requires_grad=True) for _ in range(3)]
    weights.append(torch.randn(4, 4, 1, 1, requires_grad=True))
    before = copy.deepcopy(weights)
    for scale, weight in zip((1e-6, 1.0, 1e6, 3.0), weights, strict=True):
        weight.grad = scale * torch.randn_like(weight)
    Muon(weights, 0.01).step()
    for weight, old in zip(weights, before, strict=True):
        change = (weight - old).detach()
        assert change.square().mean().sqrt().item() == pytest.approx(0.01, rel=1e-4)
        assert (change * weight.grad).sum() < 0


def test_decay_momentum_and_parameters_without_gradient():
    weight = torch.ones(2, 2, 1, 1, requires_grad=True)
    idle = torch.ones(2, 2, 1, 1, requires_grad=True)
    optimizer = Muon([weight, idle], 0.1, momentum=0.5, decay=2.0)
    weight.grad = torch.eye(2)[:, :, None, None]
    optimizer.step()
    assert torch.equal(idle, torch.ones_like(idle))
    # The weight decays by 1 - 0.1 * 2.0; the update has a root mean square of 0.1.
    change = (0.8 - weight.detach()).flatten()
    assert change.square().mean().sqrt().item() == pytest.approx(0.1, rel=1e-4)
    direction = weight.grad / weight.grad.norm()
    assert torch.allclose(optimizer.state[weight]["momentum"], direction)
    optimizer.step()
    assert torch.allclose(optimizer.state[weight]["momentum"], 1.5 * direction)


@pytest.mark.parametrize("where", [None, 0, 1])
@pytest.mark.parametrize("together", [True, False])
def test_an_overflow_of_one_optimizer_stops_the_step_of_all(where, together):
    torch.manual_seed(0)
    weights = [torch.randn(4, 4, 3, 3, requires_grad=True) for _ in range(2)]
    before = copy.deepcopy(weights)
    optimizers = [torch.optim.Adam(weights[:1], lr=0.1), Muon(weights[1:], 0.1)]
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(sum(weight.square().sum() for weight in weights)).backward()
    if where is not None:
        weights[where].grad[0, 0, 0, 0] = float("inf")
    if together:
        overflow_together(optimizers)
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    moved = [not torch.equal(*pair) for pair in zip(weights, before, strict=True)]
    alone = [i != where for i in range(2)]
    assert moved == (alone if where is None or not together else [False, False])
