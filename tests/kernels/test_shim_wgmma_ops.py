"""wgmma convolutions, head and tail in the host build: contract, overflow flag, planted bugs."""

import re

import pytest
import torch

from espan_kernels import OPS, layout, native
from espan_kernels.conv9x9_head import kernel_wgmma as head_door
from espan_kernels.conv9x9_head import sample as head_sample
from espan_kernels.tail import kernel_wgmma as tail_door
from espan_kernels.tail import sample as tail_sample
from tests.support import shim as host
from tests.support.contract import assert_agrees, contract
from tests.support.guards import assert_bands, guarded

HALF = [torch.float16]
# Every epilogue and number of planes; one and several strips of 64 columns, segments, one pixel.
CONVS = [
    (1, 32, 32, 9, 70, "gate"),
    (1, 32, 32, 1, 1, "silu"),
    (2, 28, 28, 3, 129, "none"),
    (1, 48, 48, 5, 65, "silu"),
    (1, 52, 52, 4, 9, "gate"),
    (1, 60, 60, 3, 66, "none"),
    (0, 32, 32, 4, 4, "gate"),
]
TAIL = (2, 32, [(32, 3), (32, 1), (32, 1)], 2, 9, 66, False, True)
SPANF = (1, 32, [(32, 1), (3, 1), (32, 1)], 2, 5, 62, False, True)


@pytest.mark.usefixtures("kernel_device", "shim")
class TestConvShim(contract("conv3x3", impl="cuda_wgmma", dtypes=HALF, cases=CONVS)):
    pass


@pytest.mark.usefixtures("kernel_device", "shim")
class TestTailShim(contract("tail", impl="cuda_wgmma", dtypes=HALF, cases=tail_sample.WGMMA)):
    pass


@pytest.mark.usefixtures("kernel_device", "shim")
class TestHeadShim(
    contract("conv9x9_head", impl="cuda_wgmma", dtypes=HALF, cases=head_sample.CUDA)
):
    pass


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("conv3x3", (2, 52, 52, 7, 70, "gate")),
        ("tail", TAIL),
        ("tail", SPANF),
        ("conv9x9_head", (2, 28, 12, 70, True)),
    ],
    ids=str,
)
def test_agrees_in_any_order_shim(host_build, shim_module, name, case, seed):
    shim_module.seed(seed)
    assert_agrees(OPS[name], OPS[name].make(case, torch.float16, "cpu"), impl="cuda_wgmma")


@pytest.mark.parametrize("impl", ["cuda", "cuda_wgmma"])
@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("spab", (1, 32, 3, 9, 70)),
        ("spab", (1, 28, 2, 7, 9)),
        ("spab", (1, 48, 3, 5, 9)),
        ("conv3x3", (1, 32, 32, 9, 20, "silu")),
        ("conv3x3", (1, 52, 52, 9, 20, "gate")),
    ],
    ids=str,
)
def test_largest_tanh_error_is_allowed_shim(host_build, shim_module, impl, name, case):
    shim_module.set_tanh_error(2.0**-11)
    try:
        assert_agrees(OPS[name], OPS[name].make(case, torch.float16, "cpu"), impl=impl)
    finally:
        shim_module.set_tanh_error(0.0)


def tail_arguments(case):
    """(inputs in NC/8HW8 layout, packed weights, scale) with input magnitudes of at most 4."""
    inputs, weights, bias, up_weight, up_bias, scale, *_ = OPS["tail"].make(
        case, torch.float16, "cpu"
    )
    order = tail_door.order(weights)
    packed = tail_door.pack([weights[i] for i in order], bias, up_weight, up_bias)
    return [layout.to_nc8hw8(inputs[i].clamp(-4, 4)) for i in order], packed, scale


def launched(case, place=None, value=0.0, limit=8.0):
    """(image, trusted flag) of a tail with one input value replaced."""
    inputs, packed, scale = tail_arguments(case)
    n, _, h, w = inputs[0].shape[:4]
    if place is not None:
        i, *index = place
        inputs[i][tuple(index)] = value
    out, buffer = guarded(torch.empty(n, 3, scale * h, scale * w, dtype=torch.uint8))
    trusted = torch.ones(1, dtype=torch.bool)
    bits = tail_door.limit_bits(limit)
    tail_door.launch(inputs, packed, out, "contiguous", scale, True, trusted, bits, overlap=True)
    assert_bands(buffer)
    return out, trusted.item()


# (input, image, plane, row, column, channel): the first and the last value of each input.
PLACES = [
    (0, 0, 0, 0, 0, 0),
    (0, 1, 3, 8, 65, 7),
    (1, 0, 2, 4, 60, 3),
    (1, 1, 3, 8, 65, 7),
    (2, 0, 0, 0, 59, 1),
]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize(
    ("value", "trusted"),
    [(7.9, True), (-8.0, True), (8.1, False), (-9.0, False), (float("nan"), False)],
)
def test_one_value_decides_whether_an_image_is_trusted_shim(host_build, place, value, trusted):
    assert launched(TAIL, place, value)[1] is trusted


@pytest.mark.parametrize("place", [(0, 0, 3, 4, 61, 7), (1, 0, 1, 0, 0, 0), (2, 0, 0, 2, 60, 2)])
def test_image_input_of_spanf_tail_is_checked_too_shim(host_build, place):
    assert launched(SPANF)[1] is True
    assert launched(SPANF, place, float("-inf"))[1] is False


def test_negative_limit_trusts_nothing_shim(host_build):
    assert launched(TAIL, limit=-1.0)[1] is False


@pytest.mark.parametrize("limit", [0.0, 1e-9, 8.0, 8.001, 1.5e4, 65503.0, 65504.0, 1e30])
def test_limit_bits_are_those_of_the_largest_half_below(limit):
    bits = torch.tensor(tail_door.limit_bits(limit), dtype=torch.int16)
    half, above = bits.view(torch.float16), (bits + 1).view(torch.float16)
    assert half.double() <= limit < above.double() or (bits == 0x7BFF and limit >= 65504)


@pytest.mark.parametrize("limit", [-1.0, -0.5, float("nan")])
def test_limit_bits_of_no_limit(limit):
    assert tail_door.limit_bits(limit) == -1


def test_head_writes_only_its_output_shim(host_build):
    x, weight, bias = OPS["conv9x9_head"].make((2, 28, 11, 70, True), torch.float16, "cpu")
    out, buffer = guarded(torch.empty(2, 4, 11, 70, 8, dtype=torch.float16))
    head_door.launch(x, "contiguous", head_door.pack(weight, bias), out, overlap=True)
    assert_bands(buffer)
    assert not out[:, 3, ..., 4:].any()  # past the 28 channels


TAIL_BUGS = {
    "flag not set": ("trusted", {"work.trusted.store(0, false);": ""}),
    "x not tracked": ("trusted", {"track(x);": ""}),
    "other inputs not tracked": ("trusted", {"track(halves[s]);": ""}),
    "the flag set too early": (
        "global memory before wait_for_earlier_kernels",
        {"        wait_for_earlier_kernels();\n        work.trusted": "        work.trusted"},
    ),
    "1x1 products not added": ("values", {"sum[i] += more;": ""}),
    "1x1 sums not cleared": ("values", {"take(more, acc[i], 0);": "take(more, acc[i], acc[i]);"}),
    "other inputs a row early": (
        "values|deadlock",
        {"SINGLES && finishes;": "SINGLES;"},
    ),
    "pixels not double-buffered": ("values", {"        stage.swap();\n": ""}),
    "pixels written before they are staged": ("values", {"bar_sync(STAGED, WARPGROUP);": ""}),
    "a strip's rows in another's place": (
        "values",
        {"stage.begin(it, width);": "stage.begin({0, 0, 0, it.rows}, width);"},
    ),
}


def tail_caught() -> str | None:
    """How a run of the tail reveals a bug under one of a few thread orders, or None."""
    args = OPS["tail"].make(TAIL, torch.float16, "cpu")
    truth = OPS["tail"].reference([x.clamp(-4, 4) for x in args[0]], *args[1:])
    for seed in range(4):
        native.MODULE.seed(seed)
        try:
            found, trusted = launched(TAIL)
            flagged = [launched(TAIL, place, 9.0)[1] for place in (PLACES[1], PLACES[4])]
        except (native.CudaError, AssertionError) as error:
            return str(error)
        if not trusted or any(flagged):
            return "trusted"
        if (found.int() - truth.int()).abs().max() > 2:
            return "values"
    return None


def test_no_false_positives_shim(host_build):
    assert tail_caught() is None


@pytest.mark.parametrize("bug", TAIL_BUGS)
def test_finds_planted_bugs_shim(use_module, shim_objects, tmp_path, bug):
    how, change = TAIL_BUGS[bug]
    use_module(host.patched(shim_objects, tmp_path, "tail_wgmma.cu", change))
    shown = tail_caught()
    assert shown is not None and re.search(how, shown), shown
