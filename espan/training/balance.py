"""Balance of the terms of the loss: a fixed share for frequencies, and statistics for the log."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from espan.training.losses import Terms

FREQUENCIES = ("dct", "highpass", "student_dct", "student_highpass")


def hold_share(terms: Terms, share: float, mean: Callable[[Tensor], Tensor]) -> Terms:
    """Scales the frequency terms by one factor, without gradient, to `share` of the total loss.

    mean: averages a tensor over all processes, which makes the result independent of their number.
    Returns `terms` unchanged if the frequency terms are absent or 0.
    """
    shaped = {name: term for name, term in terms.items() if name in FREQUENCIES}
    if not shaped or not share:
        return terms
    whole, part = (
        mean(sum(some.values(), torch.zeros_like(next(iter(some.values())))).detach())
        for some in (terms, shaped)
    )
    if not part:
        return terms
    factor = share / (1 - share) * (whole - part) / part
    return terms | {name: factor * term for name, term in shaped.items()}


def statistics_of(
    terms: Terms,
    plain: Tensor,
    parameters: Iterable[Tensor],
    mean: Callable[[Tensor], Tensor],
) -> dict[str, float]:
    """For the log: each term's share of the loss and the cosine of its gradient with L1's.

    plain: the L1 distance from the HR patches, also if it is not a term of the loss. mean: averages
    a tensor over all processes.
    """
    wanted = [p for p in parameters if p.requires_grad]
    values = {name: mean(term.detach()).item() for name, term in terms.items()}
    loss = sum(values.values())
    reference = _gradients(plain, wanted, mean)
    row = {}
    for name, term in terms.items():
        row[f"{name} share"] = values[name] / loss if loss else 0.0
        row[f"{name} cosine"] = _cosine(_gradients(term, wanted, mean), reference)
    return row


def _gradients(
    term: Tensor, parameters: list[Tensor], mean: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    gradients = torch.autograd.grad(
        term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return [mean(gradient) for gradient in gradients]


def _cosine(some: list[Tensor], others: list[Tensor]) -> float:
    """Cosine of the concatenated tensors, computed without a copy of them."""

    def product(left: list[Tensor], right: list[Tensor]) -> float:
        pairs = zip(left, right, strict=True)
        return sum(torch.dot(a.flatten().float(), b.flatten().float()).item() for a, b in pairs)

    length = math.sqrt(product(some, some) * product(others, others))
    return product(some, others) / length if length else 0.0
