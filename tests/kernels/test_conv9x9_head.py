"""conv9x9_head: the contract of its kernels, uint8 images, and invalid arguments."""

import pytest
import torch

from espan_kernels import OPS, conv9x9_head
from espan_kernels.conv9x9_head import sample
from tests.support.contract import DEVICE, contract

pytestmark = pytest.mark.usefixtures("kernel_device")

OP = OPS["conv9x9_head"]


class TestKernel(contract("conv9x9_head")):
    pass


@pytest.mark.usefixtures("shim")
class TestCudaShim(
    contract("conv9x9_head", impl="cuda", dtypes=[torch.float16], cases=sample.CUDA)
):
    pass


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize(
    ("case", "dtype", "reason"),
    [
        ((1, 24, 4, 4, True), torch.float16, "needs 25 to 32 output channels, got 24"),
        ((1, 32, 4, 4, True), torch.float32, "needs float16 weights, got torch.float32"),
    ],
)
def test_cuda_refuses_shim(case, dtype, reason):
    with pytest.raises(ValueError, match=f"impl='cuda' refuses: the CUDA kernel {reason}"):
        conv9x9_head(*OP.make(case, dtype, DEVICE), impl="cuda")


@pytest.mark.parametrize("impl", ["eager", "triton"])
def test_uint8_equals_the_image_over_255(impl):
    x, weight, bias = OP.make((1, 8, 5, 6, True), torch.float32, DEVICE)
    assert torch.equal(
        conv9x9_head(x, weight, bias, impl=impl), conv9x9_head(x / 255, weight, bias, impl=impl)
    )


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        (torch.ones(1, 4, 5, 5), torch.ones(8, 3, 9, 9), "conv9x9_head: x: expected 3 channels"),
        (torch.ones(3, 5, 5), torch.ones(8, 3, 9, 9), "conv9x9_head: x: expected 4 dimensions"),
        (torch.ones(1, 3, 5, 5).int(), torch.ones(8, 3, 9, 9), "floating point or uint8, got"),
        (
            torch.ones(1, 3, 5, 5),
            torch.ones(8, 3, 3, 3),
            r"weight: expected shape \(out, 3, 9, 9\)",
        ),
        (
            torch.ones(1, 3, 5, 5).half(),
            torch.ones(8, 3, 9, 9),
            "x: expected device and dtype of weight",
        ),
    ],
)
def test_bad_arguments(x, weight, message):
    with pytest.raises(ValueError, match=message):
        conv9x9_head(x, weight, torch.ones(8))
