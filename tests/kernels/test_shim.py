"""The host build of the CUDA kernels detects bugs planted in the kernels."""

import re

import pytest
import torch

from espan_kernels import OPS, native, spab, span_gate
from tests.support import shim as host
from tests.support.contract import assert_agrees

# Two strips and several segments, so that blocks of the persistent grid process several items.
BLOCK = (1, 32, 3, 14, 70)
# An odd number of planes, more than 4.
ODD = (1, 40, 3, 5, 70)
FULL = "bar_sync(full(CONV, u), 2 * S::CONV_THREADS);"
EMPTY = "if constexpr (!IS_FIRST) bar_arrive(empty(CONV, u), 2 * S::CONV_THREADS);"
STORE = "inside ? pair : 0"
READ = "a_word + u * S::SLOT"
LOAD = "cp_async_wait<1>();"
HEADERS = ("common/convolve.cuh", "common/rows.cuh")
# {how it shows: {bug: {text in one of HEADERS: its replacement}}}
PLANTED = {
    "wrong values": {
        "no barrier after the copies": {
            f"{LOAD}\n                    bar_sync(LOADED, S::CONV_THREADS);": LOAD
        },
        "a wait too few": {LOAD: "cp_async_wait<2>();"},
        "a slot freed before it is read": {EMPTY: "", FULL: FULL + EMPTY},
        "a ring read one row off": {READ: "a_word + (u + 1) % SLOTS * S::SLOT"},
        "hidden pixels outside of the image kept": {STORE: "pair"},
    },
    "deadlock in block 0: thread .* waits for a barrier": {
        "no wait for a full slot": {FULL: "bar_arrive(full(CONV, u), 2 * S::CONV_THREADS);"},
        "a slot never freed": {EMPTY: ""},
    },
    "deadlock in block 0: thread .* waits for ldmatrix": {
        "a lane with another convolution": {
            "warp_uniform(threadIdx.x / S::CONV_THREADS);": (
                "(threadIdx.x + 1) / S::CONV_THREADS % CONVS;"
            )
        },
    },
    r"shared\[\d+\] of 9504": {
        "a ring read past its end": {READ: "a_word + (u + 1) * S::SLOT"},
        "a ring read one column off": {
            "(left + lane_id() % 16) * W": "(left + lane_id() % 16 + 1) * W"
        },
    },
    r"global\[-\d+\] of 15680": {
        "rows read outside of the image": {"has_row && unsigned(p.load_at": "unsigned(p.load_at"},
    },
    r"global\[\d+\] of 15680": {
        "rows stored below the image": {"+ 2 * REACH;": "+ 2 * REACH + 1;"},
    },
}
PLANTED_IN_ODD = {
    "wrong values": {
        "the odd plane left out": {"(PLANES + 1) / 2;": "PLANES / 2;"},
        "the odd plane multiplied by another's weights": {"a, b[0])": "a, b[-1])"},
    },
    r"shared\[\d+\] of": {
        "planes loaded that are not there": {"p.q + k >= PLANES": "p.q + k > PLANES"},
    },
}
BUGS = [
    (case, how, bug, change)
    for case, planted in ((BLOCK, PLANTED), (ODD, PLANTED_IN_ODD))
    for how, bugs in planted.items()
    for bug, change in bugs.items()
]


def channels_last_block(case=BLOCK):
    x, weights, biases = OPS["spab"].make(case, torch.float16)
    return x.contiguous(memory_format=torch.channels_last), weights, biases


def caught(module, case=BLOCK) -> str | None:
    """How a run of the block reveals a bug under one of a few thread orders, or None."""
    truth = OPS["spab"].reference(*channels_last_block(case))
    for seed in range(3):
        module.seed(seed)
        try:
            got = spab(*channels_last_block(case), impl="cuda")
        except native.CudaError as error:
            return str(error)
        if not torch.allclose(got, truth, atol=0.03, rtol=0.01):
            return "wrong values"
    return None


@pytest.mark.parametrize("seed", range(4))
def test_shim_block_agrees_in_any_order(use_module, shim_module, seed):
    use_module(shim_module)
    shim_module.seed(seed)
    assert_agrees(OPS["spab"], channels_last_block(), impl="cuda")


@pytest.mark.parametrize("case", [BLOCK, ODD], ids=str)
def test_shim_no_false_positives(use_module, shim_module, case):
    use_module(shim_module)
    assert caught(shim_module, case) is None


@pytest.mark.parametrize(("case", "how", "bug", "change"), BUGS, ids=[bug for _, _, bug, _ in BUGS])
def test_shim_finds_planted_bugs(use_module, shim_objects, tmp_path, case, how, bug, change):
    source = "spab.cu" if case == BLOCK else "conv3x3.cu"
    header = next(name for name in HEADERS if min(change) in (host.SOURCES / name).read_text())
    module = host.patched(shim_objects, tmp_path, source, change, header)
    use_module(module)
    assert re.search(how, caught(module, case) or "nothing")


def test_shim_3_strips_of_20_rows(use_module, shim_module):
    use_module(shim_module)
    for convs in (2, 3):
        assert_agrees(
            OPS["spab"], OPS["spab"].make((1, 32, convs, 20, 180), torch.float16), impl="cuda"
        )


def test_shim_names_an_access_out_of_bounds(use_module, shim_objects, tmp_path):
    forward = "load_vector(y, first);\n        Vector<T> result;"
    bug = {forward: forward.replace("first", "first + 8", 1)}
    use_module(host.patched(shim_objects, tmp_path, "span_gate.cu", bug))
    x = torch.ones(16, dtype=torch.float16)
    message = (
        r"^span_gate: cudaErrorIllegalAddress: block 0, thread \d+: global\[16\] of 16; the CUDA"
    )
    with pytest.raises(native.CudaError, match=message):
        span_gate(x, x, impl="cuda")
