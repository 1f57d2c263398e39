"""conv3x3: the contract of its kernels, and invalid arguments."""

import pytest
import torch

from espan_kernels import OPS, conv3x3, layout, tune
from espan_kernels.conv3x3 import kernel_cuda, sample
from tests.support.contract import DEVICE, LENGTHS, assert_agrees, contract

pytestmark = pytest.mark.usefixtures("kernel_device")

OP = OPS["conv3x3"]


class TestKernel(contract("conv3x3")):
    pass


@pytest.mark.usefixtures("shim")
class TestCudaShim(contract("conv3x3", impl="cuda", dtypes=[torch.float16], cases=sample.CUDA)):
    pass


def test_every_size(guard_bands):
    for h, w in zip(LENGTHS, reversed(LENGTHS), strict=True):
        assert_agrees(OP, OP.make((1, 2, 3, h, w, "gate"), torch.float32, DEVICE))


@pytest.mark.parametrize("tuned", [False, True])
def test_tuning_times_each_kind_once(tuned, monkeypatch):
    times = iter([3.0, 1.0, 2.0, 4.0])
    monkeypatch.setattr(tune, "AUTOTUNE", tuned)
    monkeypatch.setattr(tune, "_FASTEST", {})
    monkeypatch.setattr(tune, "milliseconds", lambda run: run() or next(times))
    args = OP.make((1, 3, 4, 9, 9, "silu"), torch.float32, DEVICE)
    for _ in range(2):
        assert_agrees(OP, args)
    assert list(tune._FASTEST.values()) == ([(4, 32, 8)] if tuned else [])


def arguments(**changes):
    x, weight, bias, _, gate = OP.make((1, 4, 8, 3, 5, "gate"), torch.float32, DEVICE)
    return {"x": x, "weight": weight, "bias": bias, "gate": gate, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.ones(4, 3, 5)}, r"conv3x3: x: expected 4 dimensions \(N, C, H, W\), got"),
        ({"x": torch.ones(1, 4, 3, 5).int()}, "conv3x3: x: expected floating point"),
        ({"weight": torch.ones(8, 3, 3, 3)}, r"weight: expected shape \(out, 4, 3, 3\), got"),
        ({"weight": torch.ones(8, 4, 5, 5)}, r"weight: expected shape \(out, 4, 3, 3\), got"),
        ({"bias": torch.ones(7)}, r"conv3x3: bias: expected shape \(8,\), got \(7,\)"),
        ({"bias": torch.ones(8).half()}, "bias: expected device and dtype of x"),
        ({"gate": torch.ones(1, 4, 3, 5)}, r"gate: expected shape \(1, 8, 3, 5\)"),
        ({"act": "silu"}, "conv3x3: act: expected 'none' with a gate"),
        ({"act": "relu", "gate": None}, "conv3x3: act: expected 'none' or 'silu', got 'relu'"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        conv3x3(**arguments(**changes))


def test_refusals():
    wide = {"x": torch.ones(1, 65, 3, 3), "weight": torch.ones(8, 65, 3, 3), "gate": None}
    with pytest.raises(ValueError, match="impl='triton' refuses: up to 64 channels"):
        conv3x3(**arguments(**wide), impl="triton")
    learned = arguments()
    learned["weight"].requires_grad_()
    with pytest.raises(ValueError, match="forward only, and a gradient is needed"):
        conv3x3(**learned, impl="triton")
    conv3x3(**learned).sum().backward()
    with torch.no_grad():
        conv3x3(**learned, impl="triton")


@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("epilogue", ["none", "silu", "gate"])
def test_cuda_launches_of_one_packing_shim(epilogue):
    args = OP.make((1, 28, 28, 4, 9, epilogue), torch.float16, DEVICE)
    x, weight, bias, act, gate = args
    packed = kernel_cuda.pack(weight, bias, plain=gate is None and act == "none")
    planes = layout.to_nc8hw8(x)
    gates = None if gate is None else layout.to_nc8hw8(gate)
    out = torch.full_like(planes, float("nan"))
    for _ in range(2):
        kernel_cuda.launch(planes, packed, out, act, gates, "nc8hw8")
        got = layout.from_nc8hw8(out, 28)
        assert torch.equal(got, conv3x3(x, weight, bias, act=act, gate=gate, impl="cuda"))
        # Padding channels stay 0, so that the next kernel can read them.
        assert torch.equal(layout.to_nc8hw8(got), out)
    kernel_cuda.launch(planes, packed, out, act, gates, "nc8hw8", fp16_accumulation=True)
    assert not torch.equal(layout.from_nc8hw8(out, 28), got)
    torch.testing.assert_close(layout.from_nc8hw8(out, 28), got, atol=4e-3, rtol=4e-3)


@pytest.mark.usefixtures("shim")
def test_cuda_refusals_shim():
    with pytest.raises(ValueError, match="CUDA convolutions need float16, got"):
        conv3x3(**arguments(), impl="cuda")
    halves = {name: t.half() for name, t in arguments().items()}
    with pytest.raises(ValueError, match="need 17 to 64 channels, as many out as in, got 4 and 8"):
        conv3x3(**halves, impl="cuda")
    with pytest.raises(ValueError, match="as many out as in, got 72"):
        OP(*OP.make((1, 72, 72, 3, 5, "none"), torch.float16, DEVICE), impl="cuda")
    with pytest.raises(ValueError, match="as many out as in, got 24 and 32"):
        OP(*OP.make((1, 32, 24, 3, 5, "none"), torch.float16, DEVICE), impl="cuda")
