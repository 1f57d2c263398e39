"""Plans compute the same as their networks, with all implementations."""

import pytest
import torch

from espan.backends.kernels import Plan
from espan.backends.program import Fused
from espan.networks.espan import ESPAN
from espan.networks.folding import fold
from espan.networks.span import SPAN
from espan.networks.spanf import SPANF
from espan.system import memory
from espan_kernels import layout, machine, order
from tests.support.gpu import DEVICE, GPU

pytestmark = pytest.mark.usefixtures("kernel_device")

# The interpreter takes about 0.2 s per layer at 24x20: full depth for ESPAN only.
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
    make = NETWORKS[name] if name in NETWORKS else CUDA[name][0]
    net = make().eval()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if key.endswith("bias"):
                # Large, so that borders other than zero are detected.
                parameter.normal_(0, 0.5)
    return net.to(DEVICE, dtype)


@EVERY
@pytest.mark.parametrize("impl", ["eager", "triton"])
@torch.no_grad()
def test_equals_the_network(name, impl):
    net = network(name)
    x = torch.rand(1, 3, 24, 20)
    truth = net.double()(x.double())
    # Allows the rounding error of float32 after 20 layers.
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


def test_plan_needs_a_folded_network():
    net = SPANF(channels=8, blocks=2, rep="plain").eval()
    with pytest.raises(ValueError, match="net: expected a folded network"):
        Plan(net)
    x = torch.rand(1, 3, 6, 5)
    out = Plan(fold(net))(x)
    assert not out.requires_grad
    torch.testing.assert_close(out, net(x), atol=1e-6, rtol=1e-5)


def test_refuses_other_networks():
    with pytest.raises(ValueError, match="expected one of ESPAN, SPAN, SPANF, got Conv2d"):
        Plan(torch.nn.Conv2d(3, 3, 3))


@torch.no_grad()
def test_a_batch_in_uint8_is_the_image_rounded():
    plan = Plan(network("espan depth 5"), "eager")
    x = torch.randint(256, (2, 3, 9, 11), dtype=torch.uint8)
    y, is_valid = plan.checked(x)
    assert is_valid and y.dtype == torch.uint8
    exact = plan(x.float() / 255, clamp=True) * 255
    assert (y - exact).abs().max() <= 0.501


@torch.no_grad()
@pytest.mark.parametrize("name", ["espan depth 5", "span 28", "spanf"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_possible_overflow_clears_the_overflow_flag(name, dtype):
    x = torch.randint(256, (1, 3, 4, 5), dtype=torch.uint8)
    net = network(name)
    last = net.get_submodule("block_1.2" if name == "spanf" else "blocks.0").requires_grad_(False)
    plan = Plan(net.to(dtype), "eager")
    assert plan.checked(x)[1]
    # The output of the first block, which the tail reads, close to the limit.
    layer = last if name == "spanf" else last.convs[-1]
    layer.bias += 4 * plan.limit if plan.limit < 1e30 else float("inf")
    assert not Plan(net, "eager").checked(x)[1]


@torch.no_grad()
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonfinite_weights_clear_the_overflow_flag(value):
    net = network("espan depth 5")
    net.upsampler.weight[0, 0, 0, 0] = value
    x = torch.randint(256, (1, 3, 4, 5), dtype=torch.uint8)
    assert not Plan(net, "eager").checked(x)[1]


def test_explain_lists_the_steps():
    plan = Plan(network("espan depth 5"))
    lines = plan.explain().splitlines()
    assert lines[0].startswith("feature = conv9x9_head(image)")
    assert lines[3].startswith("result = tail(block 2, feature, block 1)")
    if not GPU:
        assert lines[1] == "block 1 = spab(feature): eager"
        assert plan.allocate(1, 100, 100) == []
        assert plan.memory(1, 100, 100) == memory.for_pixels(100 * 100, 32, torch.float32)


# (network; per step: "c" CUDA kernel, "e" eager if the kernel refuses, "-" no op; buffers)
CUDA = {
    "espan depth 4": (lambda: ESPAN(blocks=3, last_convs=2), "cccccc", 4),
    "espan, a block of one conv": (lambda: ESPAN(blocks=1, last_convs=1), "cccc", 3),
    "span 28": (lambda: SPAN(28, blocks=2), "-eccccc", 4),
    "span 48": (lambda: SPAN(48, blocks=2, scale=2), "-ecccce", 5),
    "spanf": (lambda: SPANF(blocks=2), "-eccce", 2),
}
EVERY_CUDA = pytest.mark.parametrize("name", CUDA)
IMPLS = pytest.mark.parametrize("impl", ["cuda", "cuda_wgmma"])


@pytest.mark.usefixtures("shim")
@EVERY_CUDA
@IMPLS
@torch.no_grad()
def test_cuda_kernels_in_nc8hw8_equal_the_network_shim(name, impl, guard_bands):
    net = network(name, torch.float16)
    plan = Plan(net, impl)
    x = torch.rand(2, 3, 5, 6).half()
    truth = net.double()(x.double())
    eager = (Plan(net.half(), "eager")(x) - truth).abs().max()
    assert (plan(x) - truth).abs().max() <= 2 * eager + 1e-3


@pytest.mark.usefixtures("shim")
@EVERY_CUDA
def test_steps_and_buffers_of_a_cuda_plan_shim(name):
    _, letters, buffers = CUDA[name]
    plan = Plan(network(name, torch.float16), "cuda")
    found = [
        c.name[0] if isinstance(s, Fused) else "-"
        for s, c in zip(plan.steps, plan.chosen, strict=True)
    ]
    assert "".join(found) == letters
    assert plan.buffers == buffers
    allocated = plan.allocate(2, 5, 6)
    assert [one.shape[2:] for one in allocated] == [(5, 6, layout.PLANE)] * buffers
    others = plan.memory(2, 5, 6) - sum(one.nbytes for one in allocated)
    assert (others > 0) == ("e" in letters) and others >= 0
    # One line per step, and one per op without a kernel for these channels.
    assert len(plan.explain().splitlines()) == len(letters) + len(plan.refusals("cuda"))
    assert bool(plan.refusals("cuda")) == ("e" in letters)


@pytest.mark.usefixtures("shim")
@EVERY_CUDA
def test_requested_wgmma_kernels_come_first_shim(name):
    _, letters, buffers = CUDA[name]
    plan = Plan(network(name, torch.float16), "cuda_wgmma")
    for step, chosen, letter in zip(plan.steps, plan.chosen, letters, strict=True):
        # The sum in SPAN-F's tail, which the other kernels refuse.
        has_wgmma = letter == "c" or (name == "spanf" and step.name == "tail")
        assert (chosen.name == "cuda_wgmma") == has_wgmma, step
    assert plan.buffers == buffers
    refused = plan.refusals("cuda_wgmma")
    assert all("wgmma" in line or "CUDA" in line for line in refused)


@pytest.mark.usefixtures("shim")
def test_ops_in_wgmma_first_use_wgmma_by_default_shim(monkeypatch):
    monkeypatch.setattr(machine, "INTERPRETED", False)
    net = network("espan depth 5", torch.float16)
    assert {one.name for one in Plan(net).chosen} == {"cuda_wgmma"}
    monkeypatch.setattr(order, "WGMMA_FIRST", frozenset({"spab"}))
    names = {
        step.name: one.name for step, one in zip(Plan(net).steps, Plan(net).chosen, strict=True)
    }
    assert names == {"conv9x9_head": "cuda", "spab": "cuda_wgmma", "tail": "cuda"}


@pytest.mark.usefixtures("shim")
@torch.no_grad()
@pytest.mark.parametrize("impl", ["eager", "cuda_wgmma"])
def test_the_tails_kernel_clears_the_overflow_flag_shim(impl):
    x = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8)
    net = network("espan depth 5", torch.float16)
    assert Plan(net, impl).checked(x)[1]
    net.blocks[0].convs[-1].bias[7] += 4 * Plan(net, impl).limit
    assert not Plan(net, impl).checked(x)[1]
    net.upsampler.weight[0, 0, 0, 0] = float("inf")
    assert not Plan(net, impl).checked(x)[1]


@pytest.mark.usefixtures("shim")
@EVERY_CUDA
def test_a_buffer_is_not_used_again_before_it_is_read_shim(name):
    plan = Plan(network(name, torch.float16), "cuda")
    holds: dict[int, str] = {}
    for step in plan.steps:
        for read in step.reads:
            if read in plan.places:
                assert holds[plan.places[read]] == read, f"{step}: {read} is gone"
        if step.makes in plan.places:
            assert plan.places[step.makes] not in [plan.places.get(read) for read in step.reads]
            holds[plan.places[step.makes]] = step.makes


@pytest.mark.usefixtures("shim")
@IMPLS
@torch.no_grad()
def test_weights_are_packed_once_shim(monkeypatch, impl):
    plan = Plan(network("espan, a block of one conv", torch.float16), impl)
    for pack in ("fragments", "matrix_fragments", "wgmma_taps"):
        monkeypatch.setattr(layout, pack, None)
    x = torch.randint(256, (1, 3, 3, 4), dtype=torch.uint8)
    buffers = plan.allocate(1, 3, 4)
    first, is_valid = plan.checked(x, buffers)
    assert is_valid
    for buffer in buffers:
        buffer.fill_(float("nan"))
    assert torch.equal(plan.checked(x, buffers)[0], first)


def test_an_impl_that_refuses_every_step_is_an_error():
    with pytest.raises(ValueError, match="impl='cuda' refuses: "):
        Plan(network("espan depth 5"), "cuda")  # in float32


@pytest.mark.gpu
@EVERY_CUDA
@torch.no_grad()
def test_reruns_on_the_gpu_are_bit_equal(name):
    plan = Plan(network(name, torch.float16), "cuda")
    x = torch.randint(256, (1, 3, 61, 131), dtype=torch.uint8)
    first, _ = plan.checked(x)
    for _ in range(250):
        assert torch.equal(plan.checked(x)[0], first)
