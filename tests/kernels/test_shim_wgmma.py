"""The wgmma block in the host build: its contract, any thread order, and when it refuses."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from espan_kernels import OPS, layout, machine, native, op, spab
from espan_kernels.spab import kernel_wgmma
from tests.support.contract import DEVICE, assert_agrees, banded, contract
from tests.support.guards import assert_bands, guarded

OP = OPS["spab"]
# (batch, channels, convs, height, width): strips have 60 columns with 3 convs and 62 with 2, and
# three blocks share the items. Two strips, several segments and items per block; one pixel, one
# row, one column; padded channels; a last strip of one column. Above 32 channels one kernel per
# convolution with strips of 64 columns; an odd number of planes.
CASES = [
    (1, 32, 3, 14, 70),
    (1, 32, 2, 1, 1),
    (3, 32, 3, 1, 1),
    (1, 32, 3, 1, 61),
    (1, 28, 2, 17, 1),
    (2, 28, 3, 5, 9),
    (1, 25, 2, 3, 63),
    (2, 32, 2, 9, 125),
    (1, 32, 3, 40, 60),
    (0, 32, 3, 4, 4),
    (1, 48, 3, 5, 67),
    (2, 52, 2, 3, 9),
    (1, 64, 2, 4, 65),
]
TWO_STRIPS = CASES[0]


@pytest.fixture
def wgmma(shim):
    """impl="cuda_wgmma" runs on tensors of DEVICE."""
    if reason := machine.needs_wgmma(torch.ones(1, device=DEVICE)):
        pytest.skip(reason)


@pytest.mark.usefixtures("kernel_device", "wgmma")
class TestWgmmaShim(contract("spab", impl="cuda_wgmma", dtypes=[torch.float16], cases=CASES)):
    pass


def test_weight_layout_matches_the_documentation():
    weight = torch.arange(1, 1 + 22 * 23 * 9).reshape(22, 23, 3, 3)
    taps = layout.wgmma_taps(weight)
    assert taps.shape == (3, 2, 2, 5, 3, 8, 8) and taps.is_contiguous()
    weight = torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, 9, 0, 2))
    for column, step, half, row, eight, o, i in ((0, 0, 0, 0, 0, 0, 0), (2, 1, 1, 3, 2, 5, 7)):
        tap = weight[8 * eight + o, 16 * step + 8 * half + i, (2, 1, 0, 2, 1)[row], column]
        assert taps[column, step, half, row, eight, o, i] == tap
    assert torch.equal(taps[:, :, :, :2], taps[:, :, :, 3:])


def on_cpu(case):
    return OP.make(case, torch.float16, "cpu")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("convs", [2, 3])
def test_shim_agrees_in_any_order(host_build, shim_module, convs, seed):
    shim_module.seed(seed)
    assert_agrees(OP, on_cpu((2, 28, convs, 7, 70)), impl="cuda_wgmma")


@pytest.mark.parametrize("convs", [2, 3])
def test_shim_large_biases_stay_inside(host_build, convs):
    """Hidden pixels outside the image are 0, not the SiLU of the bias, which would be 20."""
    x, weights, biases = on_cpu((1, 32, convs, 4, 62))
    assert_agrees(OP, (x, weights, [20 * bias.sign() for bias in biases]), impl="cuda_wgmma")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", [(1, 28, 3, 9, 70), (2, 25, 2, 4, 3), (1, 52, 2, 4, 9)], ids=str)
def test_shim_launch_writes_only_its_output(host_build, shim_module, case, seed):
    x, weights, biases = on_cpu(case)
    planes = banded(layout.to_nc8hw8(x))
    kept = planes.clone()
    out, buffer = guarded(planes)
    shim_module.seed(seed)
    packed, scratch = kernel_wgmma.pack(weights, biases), torch.full_like(out, float("nan"))
    kernel_wgmma.launch(planes, packed, out, scratch, overlap=True)
    got = layout.from_nc8hw8(out, case[1])
    assert torch.equal(got, spab(x, weights, biases, impl="cuda_wgmma"))
    # Padding channels stay 0, so that the next block can read them.
    assert torch.equal(layout.to_nc8hw8(got), out) and torch.equal(planes, kept)
    assert_bands(buffer)


def test_shim_blocks_in_a_row(host_build):
    """Several launches reuse one packing, each on the previous output."""
    x, weights, biases = on_cpu((1, 28, 2, 5, 9))
    packed, planes = kernel_wgmma.pack(weights, biases), layout.to_nc8hw8(x)
    for _ in range(3):
        x = spab(x, weights, biases, impl="cuda_wgmma")
        out = torch.full_like(planes, float("nan"))
        kernel_wgmma.launch(planes, packed, out, overlap=True)
        planes = out
    assert torch.equal(layout.from_nc8hw8(planes, 28), x)


def test_shim_refuses_other_blocks(host_build):
    def why(*case, dtype=torch.float16):
        return next(k for k in OP.kernels if k.name == "cuda_wgmma").refuses(
            OP.make(case, dtype, "cpu")
        )

    assert why(1, 32, 3, 4, 4) is None
    assert why(1, 48, 3, 4, 4) is None
    for channels in (24, 40):
        message = f"wgmma convolutions need 25 to 32 or 41 to 64 channels, got {channels}"
        assert why(1, channels, 3, 4, 4) == message
    message = "CUDA convolutions need float16, got torch.bfloat16"
    assert why(1, 32, 3, 4, 4, dtype=torch.bfloat16) == message
    x, weights, biases = on_cpu((1, 32, 2, 4, 4))
    weights[0].requires_grad_()
    with pytest.raises(ValueError, match="spab: impl='cuda_wgmma' refuses: forward only"):
        spab(x, weights, biases, impl="cuda_wgmma")


@pytest.fixture
def hopper(monkeypatch):
    """pretend(**facts): fake CUDA tensors without memory on a Hopper GPU with changed facts."""

    def pretend(capability=(9, 0), shared=machine.WGMMA_SHARED, wgmma=True, device="cuda"):
        facts = SimpleNamespace(
            major=capability[0], minor=capability[1], shared_memory_per_block_optin=shared
        )
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: facts)
        monkeypatch.setattr(machine, "INTERPRETED", False)
        monkeypatch.setattr(native, "MODULE", SimpleNamespace(WGMMA=wgmma))
        monkeypatch.setattr(native, "DEVICE", "cuda")
        monkeypatch.setattr(native, "REASON", None)
        with FakeTensorMode():
            x, *both = ([torch.empty(s, dtype=torch.float16, device=device)] for s in SHAPES)
            return x[0], *(same * 3 for same in both)

    return pretend


SHAPES = (1, 32, 480, 270), (32, 32, 3, 3), (32,)
NO_CODE = "CUDA kernels were built without code for compute capability 9.0"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, None),
        ({"shared": machine.WGMMA_SHARED + 1}, None),
        ({"capability": (8, 9)}, "needs compute capability 9.0, cuda:0 has 8.9"),
        ({"capability": (10, 0)}, "needs compute capability 9.0, cuda:0 has 10.0"),
        ({"capability": (7, 5)}, "needs compute capability 8.0 or higher, cuda:0 has 7.5"),
        ({"shared": 99 << 10}, "needs 232448 bytes of shared memory in a block, cuda:0 has 101376"),
        ({"wgmma": False}, NO_CODE),
        ({"device": "cpu"}, "CUDA kernels need a cuda device, the tensors are on cpu"),
    ],
    ids=str,
)
def test_refusal_reasons(hopper, facts, reason):
    args = hopper(**facts)
    assert machine.needs_wgmma(*args) == reason
    if reason is None:
        assert OP.choose(args, "cuda_wgmma").name == "cuda_wgmma"
    else:
        assert f"spab: cuda_wgmma: {reason}" in OP.explain(*args).splitlines()
        with pytest.raises(ValueError, match=f"spab: impl='cuda_wgmma' refuses: {reason}"):
            OP.choose(args, "cuda_wgmma")


def test_missing_without_cuda_kernels(monkeypatch):
    monkeypatch.setattr(native, "REASON", "not built")
    assert machine.needs_wgmma(torch.ones(1, device="cpu")) == "not built"


def test_auto_on_hopper_needs_a_measurement(hopper):
    args = hopper()
    assert [kernel.name for kernel in OP.candidates(args)] == ["cuda", "triton"]
    assert OP.choose(args).name == "cuda"
    lines = OP.explain(*args).splitlines()
    assert lines[0] == "spab: cuda: runs"
    assert (
        "spab: cuda_wgmma: runs when named, not timed against eager "
        "(480x270, compute capability 9.0)" in lines
    )


def test_espan_impl_selects_it(hopper, monkeypatch):
    monkeypatch.setattr(op, "DEFAULT_IMPL", "cuda_wgmma")
    assert OP.choose(hopper()).name == "cuda_wgmma"
    code = (
        "import torch; from espan_kernels import OPS; args = OPS['spab'].make((1, 32, 2, 4, 4),"
        "torch.float16, 'cpu'); OPS['spab'](*args)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ESPAN_IMPL": "cuda_wgmma"},
        capture_output=True,
        text=True,
    )
    assert "ValueError: spab: impl='cuda_wgmma' refuses: CUDA kernels " in result.stderr
