"""Devices for which there are PyTorch's operators alone ("mps", "xpu"), by one that is made up."""

import numpy as np
import pytest
import torch

from espan import DeviceError, Upscaler
from espan.backends import select
from espan.cli import main
from espan.networks.deploy import copy_to
from espan.networks.folding import fold
from espan.networks.network import Network
from espan.system import memory
from tests.support.make_believe_device import DEVICE, make_believe
from tests.support.makers import noise, random_net

NET = random_net()


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(select, "EAGER_ONLY", (DEVICE.type,))
    with make_believe():
        yield DEVICE


def spoil(monkeypatch, change) -> None:
    """Changes what the network gives on the device."""
    whole = Network.__call__

    def spoilt(self, x):
        y = whole(self, x)
        return change(y) if x.device == DEVICE else y

    monkeypatch.setattr(Network, "__call__", spoilt)


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_images_are_those_of_the_cpu(device, backend, dtype):
    image = noise(20, 26, 3)
    expected = Upscaler(NET, device="cpu", dtype="fp32")(image)
    got = Upscaler(NET, device=device, dtype=dtype, backend=backend)(image)
    off = np.abs(got.astype(int) - expected).max()
    assert off <= (1 if dtype == "fp32" else 4)


def test_all_depths_and_tiles(device):
    up, cpu = (Upscaler(NET, device=each, dtype="fp32", tile=16) for each in (device, "cpu"))
    for image in (noise(40, 30, 4), noise(9, 8, 1, dtype=np.uint16), np.random.rand(7, 9, 3)):
        got, expected = up(image), cpu(image)
        assert got.dtype == expected.dtype
        white = 1 if image.dtype.kind == "f" else np.iinfo(image.dtype).max
        assert np.abs(got.astype(float) - expected).max() <= white / 255


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y: y + 0.5, r"a sample in torch\.float32 failed: its result is off by 0\.5 of "),
        (lambda y: y * float("nan"), r"its result is off by nan of "),
        (lambda y: y.flip(3), r"its result is off by "),
        (lambda y: y.no_such_operator(), r"failed: .*no_such_operator"),
    ],
    ids=["shifted", "nan", "mirrored", "missing"],
)
def test_a_device_that_computes_something_else_is_refused(device, monkeypatch, change, said):
    spoil(monkeypatch, change)
    with pytest.raises(DeviceError, match=said) as caught:
        Upscaler(NET, device=device, dtype="fp32")
    message = str(caught.value)
    assert "\n" not in message and message.endswith("try another dtype, or device cpu")


def test_kernels_are_refused_there(device):
    net = copy_to(fold(NET), device, torch.float32)
    for name in ("cuda", "triton", "compile"):
        with pytest.raises(DeviceError, match=f"backend '{name}': does not run on maia:0, 'eager'"):
            select.backend_of(net, name)
    for name in ("onnx", "openvino"):
        with pytest.raises(DeviceError, match=f"backend '{name}': runs on the CPU"):
            select.backend_of(net, name)


@pytest.mark.parametrize("name", ["mps", "xpu"])
def test_absent_devices_are_refused_in_one_line(name, tmp_path, weights, capsys):
    if getattr(torch, name).is_available():
        pytest.skip(f"this machine has {name}")
    with pytest.raises(DeviceError, match=f"device '{name}' is not available: ") as caught:
        Upscaler(NET, device=name)
    assert "\n" not in str(caught.value)
    assert main(["upscale", "--device", name, "-n", weights, str(tmp_path / "a.png")]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert f"device '{name}' is not available" in line


def test_what_apple_says_of_memory_is_known():
    said = "MPS backend out of memory (MPS allocated: 1.00 GB, max allowed: 1.70 GB)."
    assert memory.ran_out(RuntimeError(said)) and not memory.lost(RuntimeError(said))
