"""span_gate: the contract of its kernels, and gradients."""

import pytest
import torch

from espan_kernels import OPS, span_gate
from tests.support.contract import DEVICE, contract

pytestmark = pytest.mark.usefixtures("kernel_device")


class TestForward(contract("span_gate")):
    pass


class TestBackward(contract("span_gate_backward")):
    pass


@pytest.mark.usefixtures("shim")
class TestCudaForwardShim(contract("span_gate", impl="cuda")):
    pass


@pytest.mark.usefixtures("shim")
class TestCudaBackwardShim(contract("span_gate_backward", impl="cuda")):
    pass


@pytest.mark.parametrize("impl", ["eager", "triton"])
def test_gradient(impl):
    given = OPS["span_gate"].make((2, 3, 5, 7), torch.float32, DEVICE)
    leaves = [t.requires_grad_() for t in given]
    wide = [t.detach().double().requires_grad_() for t in leaves]
    span_gate(*leaves, impl=impl).square().sum().backward()
    span_gate(*wide, impl="eager").square().sum().backward()
    for ours, truth in zip(leaves, wide, strict=True):
        torch.testing.assert_close(ours.grad, truth.grad.float())


def test_gradient_by_differences():
    given = OPS["span_gate"].make((1, 2, 3, 2), torch.float64, DEVICE)
    assert torch.autograd.gradcheck(span_gate, [t.requires_grad_() for t in given])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0], torch.ones(1), "span_gate: x: expected a tensor, got list"),
        (torch.ones(2), torch.ones(3), r"span_gate: y: expected the shape of x, \(2,\), got"),
        (torch.ones(2).int(), torch.ones(2).int(), "span_gate: x: expected floating point, got"),
        (torch.ones(2), torch.ones(2).half(), "span_gate: y: expected device and dtype"),
        (torch.ones(2), torch.ones(2, device="meta"), "span_gate: y: expected device and dtype"),
    ],
)
def test_refuses(x, y, message):
    with pytest.raises(ValueError, match=message):
        span_gate(x, y)
