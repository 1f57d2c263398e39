"""tail: the contract of its kernels, uint8 output, and invalid arguments."""

import pytest
import torch

from espan_kernels import OPS, tail
from espan_kernels.tail import sample
from tests.support.contract import DEVICE, contract

pytestmark = pytest.mark.usefixtures("kernel_device")

OP = OPS["tail"]


class TestKernel(contract("tail")):
    pass


@pytest.mark.usefixtures("shim")
class TestCudaShim(contract("tail", impl="cuda", dtypes=[torch.float16], cases=sample.CUDA)):
    pass


SPAN = [(32, 3), (32, 1), (32, 1), (32, 1)]


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize(
    ("channels", "inputs", "dtype", "reason"),
    [
        (32, SPAN, torch.float32, "needs float16, got torch.float32"),
        (24, [(24, 3), (24, 1), (24, 1)], torch.float16, "needs 25 to 32 channels, the same"),
        (32, [(32, 3), (3, 1), (32, 1)], torch.float16, "needs 25 to 32 channels, the same"),
        (32, [(32, 3), (32, 3), (32, 1)], torch.float16, "sums a 3x3 and two or three 1x1"),
        (32, [(32, 3)], torch.float16, r"sums a 3x3 and two or three 1x1 .*, got \[3\]"),
    ],
)
def test_cuda_refuses_shim(channels, inputs, dtype, reason):
    *given, scale, clamp, uint8 = OP.make(
        (1, channels, inputs, 2, 4, 4, False, False), dtype, DEVICE
    )
    with pytest.raises(ValueError, match=f"impl='cuda' refuses: the CUDA kernel {reason}"):
        tail(*given, scale=scale, clamp=clamp, uint8=uint8, impl="cuda")


def arguments(case=(1, 8, [(8, 3), (4, 1)], 2, 5, 6, False, False), **changes):
    names = ("inputs", "weights", "bias", "up_weight", "up_bias", "scale")
    return dict(zip(names, OP.make(case, torch.float32, DEVICE), strict=False)) | changes


@pytest.mark.parametrize("impl", ["eager", "triton"])
def test_uint8_rounds_halves_to_even_and_saturates(impl):
    # Outputs equal the up conv's bias: levels n + 1/2, and values outside 0..1.
    levels = torch.tensor(
        [-3.0, 0.5, 1.5, 2.5, 99.5, 100.5, 127.0, 254.5, 254.6, 255.0, 256.0, 1e9]
    )
    given = arguments(up_weight=torch.zeros(12, 8, 3, 3), up_bias=levels / 255)
    out = tail(**given, uint8=True, impl=impl)
    exact = (levels / 255).clamp(0, 1) * 255
    assert out.dtype == torch.uint8
    assert torch.equal(out[0, :, :2, :2].flatten(), exact.round().to(torch.uint8))


@pytest.mark.parametrize("impl", ["eager", "triton"])
def test_clamp(impl):
    free, limited = (tail(**arguments(), clamp=clamp, impl=impl) for clamp in (False, True))
    assert free.min() < 0 and free.max() > 1
    assert torch.equal(limited, free.clamp(0, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": []}, "tail: inputs: expected 1 to 4 tensors, got 0"),
        ({"weights": [torch.ones(8, 8, 3, 3)]}, "tail: weights: expected 2 tensors, got 1"),
        (
            {"inputs": [torch.ones(1, 8, 5, 6), torch.ones(1, 4, 6, 5)]},
            r"tail: inputs\[1\]: expected",
        ),
        (
            {"bias": torch.ones(9)},
            r"tail: up_weight: expected shape \(12, 9, 3, 3\), got",
        ),
        ({"scale": 5}, "tail: scale: expected 2, 3 or 4, got 5"),
        ({"scale": 3}, r"tail: up_weight: expected shape \(27, 8, 3, 3\), got \(12, 8, 3, 3\)"),
        ({"up_bias": torch.ones(12).half()}, "tail: up_bias: expected device and dtype"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        tail(**arguments(**changes))
