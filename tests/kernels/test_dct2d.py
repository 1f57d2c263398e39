"""dct2 and dct_l1: the contract of their kernels, comparison with scipy, gradients, errors."""

import numpy as np
import pytest
import scipy.fft
import torch

from espan_kernels import OPS, dct2, dct_l1, machine
from tests.support.contract import DEVICE, contract
from tests.support.gpu_checks import loss_and_gradient

pytestmark = pytest.mark.usefixtures("kernel_device")

IMPLS = pytest.mark.parametrize("impl", ["eager", "triton"])
SIZES = pytest.mark.parametrize(
    ("shape", "block"), [((3, 24, 40), None), ((2, 67, 80), None), ((2, 24, 40), 8)], ids=str
)


class TestTransform(contract("dct2")):
    pass


class TestLoss(contract("dct_l1", loss_and_gradient)):
    pass


def truncated(sums: np.ndarray) -> np.ndarray:
    """float64 truncated to the 24 mantissa bits of float32."""
    mantissa, exponent = np.frexp(sums)
    return np.ldexp(np.trunc(np.ldexp(mantissa, 24)), exponent - 24)


def dot_of_tensor_cores(builder, a, b, acc, *options):
    """acc + a @ b as on a tensor core: sums of 16 products, each truncated."""
    sums, (left, right) = acc.data.astype(np.float64), (a.data, b.data)
    for k in range(0, left.shape[-1], 16):
        step = left[:, k : k + 16].astype(np.float64) @ right[k : k + 16].astype(np.float64)
        sums = truncated(sums + step)
    return type(acc)(sums.astype(np.float32), acc.dtype.scalar)


def test_loss_is_exact_with_truncating_tensor_cores(monkeypatch):
    # Summing only on such tensor cores would make the loss too small by 8e-7.
    if machine.INTERPRETED:
        from triton.runtime.interpreter import InterpreterBuilder

        monkeypatch.setattr(InterpreterBuilder, "create_dot", dot_of_tensor_cores)
    sr, hr, *_ = OPS["dct_l1"].make(((1, 256, 256), None), torch.float32, DEVICE)
    truth = dct_l1(sr.double(), hr.double(), impl="eager").item()
    theirs, ours = (dct_l1(sr, hr, impl=impl).item() - truth for impl in ("eager", "triton"))
    assert abs(ours) <= 2 * abs(theirs) + torch.finfo(torch.float32).eps


@IMPLS
def test_scipy(impl):
    x = torch.randn(2, 19, 70)
    ours = dct2(x, impl=impl).cpu()
    np.testing.assert_allclose(
        ours, scipy.fft.dctn(x.cpu().numpy(), axes=(1, 2), norm="ortho"), atol=1e-5
    )


@IMPLS
@SIZES
def test_inverse_restores_the_input(shape, block, impl):
    x = torch.randn(shape)
    back = dct2(dct2(x, block=block, impl=impl), block=block, inverse=True, impl=impl)
    torch.testing.assert_close(back, x, atol=2e-6, rtol=0)


@SIZES
def test_gradient_is_the_inverse(shape, block):
    x, grad = torch.randn(2, *shape)
    x.requires_grad_()
    dct2(x, block=block, impl="triton").backward(grad)
    torch.testing.assert_close(x.grad, dct2(grad, block=block, inverse=True), atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@SIZES
def test_loss_and_gradient(shape, block, dtype, guard_bands):
    # Small differences, so that a single float16 or TF32 product would flip signs.
    sr = torch.rand(shape).to(dtype)
    hr = (sr + 0.01 * torch.randn(shape)).to(dtype).requires_grad_()
    sr.requires_grad_()
    dct_l1(sr, hr, block=block, impl="triton").mul(3).backward()
    truth = [t.detach().double().requires_grad_() for t in (sr, hr)]
    coefficients = dct2(truth[0] - truth[1], block=block)
    # Coefficients close to 0 may have either sign.
    assert (coefficients.abs() > 1e-5 * coefficients.abs().max()).float().mean() > 0.999
    coefficients.abs().mean().mul(3).backward()
    exact = coefficients.abs().mean().item()
    assert dct_l1(sr, hr, block=block, impl="triton").item() == pytest.approx(exact, rel=1e-6)
    for ours, theirs in zip((sr, hr), truth, strict=True):
        error = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
        assert error < {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 4e-3}[dtype]


@pytest.mark.parametrize("block", [None, 8])
def test_eager_gradcheck(block):
    x, y = torch.randn(2, 8, 16, dtype=torch.float64)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dct2(x, block=block), (x,))
    assert torch.autograd.gradcheck(lambda x: dct_l1(x, y, block=block), (x,))


def test_autocast_does_not_round():
    x = torch.randn(32, 32)
    with torch.autocast(x.device.type, torch.bfloat16):
        inside = dct2(x, impl="eager")
    assert torch.equal(inside, dct2(x, impl="eager"))


def test_inference_mode_before_training():
    with torch.inference_mode():
        dct2(torch.ones(9, 10))
    x = torch.ones(9, 10, requires_grad=True)
    dct2(x).sum().backward()
    assert x.grad.isfinite().all()


def test_loss_without_gradient_is_the_same():
    sr, hr = torch.rand(2, 3, 70, 9)
    plain = dct_l1(sr, hr, impl="triton")
    assert torch.equal(plain, dct_l1(sr.requires_grad_(), hr, impl="triton"))
    assert not plain.requires_grad


def test_loss_of_equal_images():
    sr = torch.rand(2, 16, 16, requires_grad=True)
    loss = dct_l1(sr, sr.detach().clone(), impl="triton")
    loss.backward()
    assert loss == 0 and not sr.grad.any()


def test_empty_batch_is_nan_as_in_torch():
    sr, hr = torch.rand(2, 0, 16, 16)
    assert dct_l1(sr, hr, impl="triton").isnan() and dct_l1(sr, hr).isnan()


@pytest.mark.parametrize(
    ("x", "block", "message"),
    [
        (torch.ones(8), None, r"dct2: x: expected 2 dimensions or more, got shape \(8,\)"),
        (torch.ones(8, 8).int(), None, "dct2: x: expected floating point, got torch.int32"),
        (torch.ones(8, 513), None, r"height and width of 8 to 512 .*, got \(8, 513\)"),
        (torch.ones(7, 8), None, r"height and width of 8 to 512 .*, got \(7, 8\)"),
        (torch.ones(8, 8), 5, r"dct2: block: expected None or one of \(4, 8, 16, 32\), got 5"),
        (torch.ones(8, 12), 8, r"multiples of block=8, got \(8, 12\)"),
    ],
)
def test_bad_arguments(x, block, message):
    with pytest.raises(ValueError, match=message):
        dct2(x, block=block)


def test_bad_pairs():
    with pytest.raises(ValueError, match=r"dct_l1: hr: expected the shape of sr, \(8, 8\), got"):
        dct_l1(torch.ones(8, 8), torch.ones(8, 9))
    with pytest.raises(ValueError, match="dct_l1: hr: expected device and dtype of sr"):
        dct_l1(torch.ones(8, 8), torch.ones(8, 8).half())


def test_float64_is_refused_by_the_kernel():
    with pytest.raises(ValueError, match="refuses: kernels need float16, bfloat16 or float32"):
        dct2(torch.ones(8, 8).double(), impl="triton")
    assert OPS["dct2"].reference(torch.ones(8, 8).double(), None, False).dtype == torch.float64
