"""spab: the contract of its kernel, the zero border inside, and what it refuses."""

import pytest
import torch

from espan_kernels import OPS, spab
from espan_kernels.spab import sample
from tests.contract import contract

OP = OPS["spab"]


class TestKernel(contract("spab")):
    pass


HALF = [torch.float16, torch.bfloat16]


class TestFused(contract("spab", impl="triton_fused", dtypes=HALF, cases=sample.FUSED)):
    pass


@pytest.mark.usefixtures("shim")
class TestCudaShim(contract("spab", impl="cuda", dtypes=HALF[:1], cases=sample.CUDA)):
    pass


def test_fused_is_for_half_precision_and_few_channels():
    with pytest.raises(ValueError, match="impl='triton_fused' refuses: fused rows of float32"):
        spab(*OP.make((1, 32, 3, 4, 4), torch.float32), impl="triton_fused")
    with pytest.raises(ValueError, match="fused rows hold 16 or 32 channels, got 48"):
        spab(*OP.make((1, 48, 3, 4, 4), torch.float16), impl="triton_fused")


@pytest.mark.parametrize(
    ("channels", "count", "message"),
    [
        (4, 1, "spab: weights: expected 2 or 3 of them, got 1"),
        (4, 4, "spab: weights: expected 2 or 3 of them, got 4"),
        (5, 3, r"spab: weights\[0\]: expected shape \(out, 4, 3, 3\), got \(5, 5, 3, 3\)"),
    ],
)
def test_bad_arguments(channels, count, message):
    weights = [torch.ones(channels, channels, 3, 3)] * count
    with pytest.raises(ValueError, match=message):
        spab(torch.ones(1, 4, 5, 5), weights, [torch.ones(channels)] * count)


def test_mismatched_lists():
    x, weights, biases = OP.make((1, 4, 3, 5, 5), torch.float32)
    with pytest.raises(ValueError, match="spab: biases: expected 3 of them, got 2"):
        spab(x, weights, biases[:2])
    weights[1] = torch.ones(5, 4, 3, 3)
    with pytest.raises(ValueError, match=r"spab: weights\[1\]: expected 4 channels out, got 5"):
        spab(x, weights, [biases[0], torch.ones(5), biases[2]])


def test_training_is_eager():
    x, weights, biases = OP.make((1, 4, 2, 5, 5), torch.float32)
    weights[0].requires_grad_()
    with pytest.raises(ValueError, match="forward only, and a gradient is needed"):
        spab(x, weights, biases, impl="triton")
    spab(x, weights, biases).sum().backward()
    assert weights[0].grad.isfinite().all()
