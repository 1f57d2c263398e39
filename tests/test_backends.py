"""Upscaling through the kernels gives the picture that plain PyTorch gives."""

import numpy as np
import pytest
import torch

from espan import SPAN, SPANF, DeviceError, Upscaler
from espan.doctor import examine
from espan.forms import fastest_proven
from espan.plan import Plan
from espan_kernels import machine
from tests.makers import noise, random_net

needs_triton = pytest.mark.skipif(not machine.HAS_TRITON, reason="Triton is not installed")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# One network of each kind, two blocks deep: the interpreter takes a second for each.
NETWORKS = {
    "espan": lambda: random_net(channels=32, blocks=1, last_convs=2),
    "span": lambda: random_net(SPAN, channels=28, blocks=2),
    "spanf": lambda: random_net(SPANF, channels=32, blocks=2),
}


@needs_triton
@pytest.mark.parametrize("name", NETWORKS)
def test_triton_gives_the_picture_of_eager(name):
    net, picture = NETWORKS[name](), noise(20, 24, 3)
    eager, triton = (
        Upscaler(net, device=DEVICE, dtype="fp32", backend=backend)(picture)
        for backend in ("eager", "triton")
    )
    # Sums in another order: where a value lies between two levels, the nearer may change.
    difference = np.abs(eager.astype(int) - triton.astype(int))
    assert difference.max() <= 1 and difference.mean() < 1e-3


@needs_triton
def test_triton_in_tiles_gives_the_whole_picture():
    net, picture = NETWORKS["espan"](), noise(20, 24, 3, dtype=np.float32)
    whole, tiled = (
        Upscaler(net, device=DEVICE, dtype="fp32", backend="triton", tile=tile)(picture)
        for tile in (None, (20, 12))
    )
    np.testing.assert_allclose(tiled, whole, atol=2e-6)


def test_a_backend_that_is_not_there_is_refused_with_its_reason():
    if torch.cuda.is_available():
        pytest.skip("this machine may have it")
    with pytest.raises(DeviceError, match=r"backend 'cuda': .* refuses: ."):
        Upscaler(random_net(), backend="cuda")


def test_doctor_has_a_line_for_every_kernel():
    lines = examine()["kernels"]
    for op in ("span_gate", "conv3x3", "conv9x9_head", "spab", "tail", "dct2", "dct_l1"):
        for backend in ("cuda", "triton", "eager"):
            line = next(line for line in lines if line.startswith(f"{op}: {backend}: "))
            assert line.removeprefix(f"{op}: {backend}: "), "a reason, or that it runs"


class Broken:
    """A plan whose kernels fail, or give another picture."""

    def __init__(self, net, impl):
        self.net, self.impl = net, impl

    def __call__(self, x):
        if self.impl == "triton":
            raise RuntimeError("PTX was compiled with an unsupported toolchain")
        return self.net(x) + 0.5

    def checked(self, pixels):
        return pixels.repeat_interleave(4, 2).repeat_interleave(4, 3), torch.tensor(True)


class BrokenIn8Bits(Broken):
    """Right in its own dtype alone."""

    def __call__(self, x):
        return self.net(x)


@pytest.mark.parametrize("plan", [Broken, BrokenIn8Bits])
def test_kernels_that_give_another_picture_are_left_aside(plan, monkeypatch, caplog):
    net = random_net()
    assert isinstance(fastest_proven(net), Plan)
    monkeypatch.setattr("espan.forms.Plan", plan)
    assert fastest_proven(net) is net
    said = [record.getMessage() for record in caplog.records]
    assert "fastest kernels are left aside: off by 0." in said[0]
    if plan is Broken:
        assert "triton kernels are left aside: PTX was compiled" in said[1]
