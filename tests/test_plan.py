"""Plans equal their networks, through every implementation."""

import pytest
import torch

from espan.folding import fold
from espan.model import ESPAN, SPAN, SPANF
from espan.plan import Plan
from tests.contract import DEVICE

pytestmark = pytest.mark.usefixtures("kernel_device")

# The interpreter needs about 0.2 s for a layer at 24x20: full depth for ESPAN, two blocks else.
NETWORKS = {
    "espan": lambda: ESPAN(),
    "espan depth 5": lambda: ESPAN(blocks=2, last_convs=0, scale=2),
    "span 28": lambda: SPAN(28, blocks=2),
    "span 48": lambda: SPAN(48, blocks=2, scale=2),
    "span 52": lambda: SPAN(52, blocks=2, scale=3, img_range=1.0),
    "spanf": lambda: SPANF(blocks=2),
}
EVERY = pytest.mark.parametrize("name", NETWORKS)


def network(name: str, dtype=torch.float32):
    net = NETWORKS[name]().eval()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if key.endswith("bias"):
                # Large, so that a border of anything but zeros shows.
                parameter.normal_(0, 0.5)
    return net.to(DEVICE, dtype)


@EVERY
@pytest.mark.parametrize("impl", ["eager", "triton"])
@torch.no_grad()
def test_equals_the_network(name, impl):
    net = network(name)
    x = torch.rand(1, 3, 24, 20)
    truth = net.double()(x.double())
    # Both round differently: as far from the truth as float32 may be after 20 layers.
    torch.testing.assert_close(
        Plan(net.float(), impl)(x).double(), truth, atol=2e-6 * truth.abs().max().item(), rtol=0
    )


@EVERY
@torch.no_grad()
def test_equals_the_network_exactly_in_float64(name):
    net = network(name, torch.float64)
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(Plan(net, "eager")(x), net(x), atol=0, rtol=1e-10)


@torch.no_grad()
def test_half_precision_and_uint8():
    net = network("espan depth 5")
    x = torch.rand(1, 3, 9, 11)
    exact = Plan(net, "eager")(x, clamp=True)
    half = Plan(net.half(), "triton")(x.half(), uint8=True)
    assert half.dtype == torch.uint8
    assert (half / 255 - exact).abs().max() < 0.01


@pytest.mark.usefixtures("shim")
@torch.no_grad()
def test_from_uint8_to_uint8_through_cuda_kernels_shim():
    net = network("espan depth 5")
    x = torch.randint(0, 256, (1, 3, 9, 11), dtype=torch.uint8)
    exact = Plan(net, "eager")(x / 255, clamp=True)
    got = Plan(net.half(), "cuda")(x, uint8=True)
    assert got.dtype == torch.uint8
    assert (got / 255 - exact).abs().max() < 0.01


@torch.no_grad()
def test_weights_are_copied():
    net = network("espan depth 5")
    x = torch.rand(1, 3, 6, 6)
    plan = Plan(net, "eager")
    before = plan(x)
    for parameter in net.parameters():
        parameter.zero_()
    assert torch.equal(plan(x), before)


def test_of_a_folded_network():
    net = SPANF(channels=8, blocks=2, rep="plain").eval()
    with pytest.raises(ValueError, match="Plan: net: expected a folded network"):
        Plan(net)
    x = torch.rand(1, 3, 6, 5)
    out = Plan(fold(net))(x)
    assert not out.requires_grad
    torch.testing.assert_close(out, net(x), atol=1e-6, rtol=1e-5)


def test_refuses_other_networks():
    with pytest.raises(ValueError, match="expected one of ESPAN, SPAN, SPANF, got Conv2d"):
        Plan(torch.nn.Conv2d(3, 3, 3))
