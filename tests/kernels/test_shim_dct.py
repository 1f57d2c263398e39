"""The host build runs dct_l1 and finds the bugs planted in it."""

import re

import pytest
import torch

from espan_kernels import OPS, dct_l1, native
from tests.support import shim as host
from tests.support.contract import assert_agrees, contract
from tests.support.gpu_checks import loss_and_gradient

OP = OPS["dct_l1"]
# Odd, to have a middle element; more than 64, so that several warps share a line.
SHAPE = (2, 67, 71)
PASSES, LINES, ORDER = "dct_l1_passes.cuh", "dct_l1.cuh", "dct_l1_order.cuh"
BARRIER = "        bar_sync(0, lines.threads);\n"
FORWARD = "        multiply<false, ROW_TILES>(lines, parts, work.across[0], sums);"
READ = "        // All warps have read the lines; the signs overwrite the high parts.\n"
FOLD = "far = i < lines.odd ? difference(lines.n - 1 - i) : 0;"
STAGE_BARRIER = "    bar_sync(0, lines.threads);\n    for_each_pair"
# One strip per group, groups one after another.
GROUPS = {"1 << 18": "1 << 12", "RUNNING = 320": "RUNNING = 1"}
RING = "groups < passes * lag ? groups : passes * lag"
# {how it shows: {(file, bug): {text: its replacement}}}
PLANTED = {
    "wrong gradient": {
        (PASSES, "signs read while they are stored"): {
            f"{BARRIER}        multiply<true": "        multiply<true"
        },
        (PASSES, "coefficients of 0 have a sign"): {"float(x > 0)": "float(x >= 0)"},
        (PASSES, "the way back not transposed"): {"work.down[1]": "work.down[0]"},
        (PASSES, "odd sums added to both ends"): {
            "(even - odd) * work.scale": "(even + odd) * work.scale"
        },
    },
    "wrong loss": {
        (ORDER, "a slot of the ring buffer filled while it is in use"): GROUPS
        | {RING: "1", "group >= ring) {": "group < 0) {"},
        (LINES, "sums staged while lines are read"): {STAGE_BARRIER: "    for_each_pair"},
        (PASSES, "signs stored while lines are read"): {f"{READ}{BARRIER}": ""},
        (PASSES, "no barrier after the lines"): {f"{BARRIER}{FORWARD}": FORWARD},
        (LINES, "low parts of the lines forgotten"): {
            "if constexpr (!EXACT) mma_m16n8k16(small, low, b[c].x, b[c].y);": ""
        },
        (LINES, "low parts of the matrix forgotten"): {
            "mma_m16n8k16(small, high, b[c].z, b[c].w);": ""
        },
        (LINES, "a line read one off"): {"lane % 16);": "(lane + 1) % 16);"},
        (PASSES, "the middle counted twice"): {FOLD: FOLD.replace("i < lines.odd", "true")},
        (LINES, "padding lines counted"): {"of[i] : EvenOdd{0, 0};": "of[i] : EvenOdd{1, 0};"},
        (PASSES, "partial sums of a block written over the last one's"): {
            "int64_t(group()) * work.order.down + block();": "0;"
        },
    },
    r"global\[\d+\] of (9088|426)": {
        (PASSES, "the far end one off"): {FOLD: FOLD.replace("- 1 ", "")},
        (PASSES, "lines stored beyond the last"): {
            "row < count; row += step) run": "row < lines.rows; row += step) run"
        },
    },
    "deadlock in block 0: thread .* waits for a barrier|comes to .*, other lanes to": {
        (LINES, "a lane that leaves early"): {"left > 0;": "left > lane_id() / 31 * STEP;"},
        (LINES, "a barrier of too many"): {
            STAGE_BARRIER: STAGE_BARRIER.replace("threads", "threads + 32")
        },
    },
    r"dynamic shared memory, byte \[0\] of": {
        ("dct_l1.cu", "too little shared memory"): {"4 * work.words": "3 * work.words"},
    },
    "waits for an incomplete pass": {
        (ORDER, "a pass before the previous one is complete"): GROUPS
        | {"round - pass * lag;": "round - pass % 2 * lag;"},
        (ORDER, "a pass that is not counted as complete"): {
            "if (pass != Task::NOTHING) add_done": "if (pass > 0) add_done"
        },
        (ORDER, "a ring buffer too short"): GROUPS | {RING: "1"},
    },
}
BUGS = [(how, file, change) for how, bugs in PLANTED.items() for (file, _), change in bugs.items()]
NAMES = [bug for bugs in PLANTED.values() for _, bug in bugs]


@pytest.mark.usefixtures("shim")
class TestLossShim(contract("dct_l1", loss_and_gradient, impl="cuda")):
    pass


def images(shape=SHAPE):
    """Two similar images, equal in some rows: some coefficients are close to 0, some are 0."""
    generator = torch.Generator().manual_seed(0)
    sr = torch.rand(shape, generator=generator)
    hr = sr + 0.01 * torch.randn(shape, generator=generator)
    hr[-1] = sr[-1]
    return sr, hr


def run(sr, hr, block=None, impl="cuda"):
    sr = sr.detach().requires_grad_()
    loss = dct_l1(sr, hr, block=block, impl=impl)
    loss.backward()
    return loss.detach(), sr.grad


def caught(module) -> str | None:
    """How the loss reveals a bug under one of a few thread orders, or None."""
    loss, gradient = run(*(t.double() for t in images()), impl="eager")
    for seed in range(2):
        module.seed(seed)
        try:
            ours, our_gradient = run(*images())
        except native.CudaError as error:
            return str(error)
        if not abs(ours / loss - 1) < 1e-6:
            return "wrong loss"
        if not (our_gradient - gradient).norm() < 1e-6 * gradient.norm():
            return "wrong gradient"
    return None


def test_shim_no_false_positives_in_dct(host_build, shim_module):
    assert caught(shim_module) is None


@pytest.mark.parametrize(("how", "file", "change"), BUGS, ids=NAMES)
def test_shim_finds_planted_dct_bugs(shim, shim_objects, monkeypatch, tmp_path, how, file, change):
    module = host.patched(shim_objects, tmp_path, "dct_l1.cu", change, file)
    monkeypatch.setattr(native, "MODULE", module)
    assert re.search(how, caught(module) or "nothing")


def test_shim_groups_of_strips_change_nothing(host_build, shim_objects, monkeypatch, tmp_path):
    sr, hr = images((5, 24, 40))
    whole = [run(sr, hr, block) for block in (None, 8)]
    changes = {"1 << 18": "1 << 11", "RUNNING = 320": "RUNNING = 1"}
    grouped = host.patched(shim_objects, tmp_path, "dct_l1.cu", changes, ORDER)
    monkeypatch.setattr(native, "MODULE", grouped)
    for (loss, gradient), block in zip(whole, (None, 8), strict=True):
        ours, our_gradient = run(sr, hr, block)
        assert torch.equal(gradient, our_gradient)
        torch.testing.assert_close(ours, loss, rtol=2e-7, atol=0)
        # Without a gradient: two passes.
        torch.testing.assert_close(dct_l1(sr, hr, block=block, impl="cuda"), ours, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(8, 512), (200, 130)], ids=str)
def test_shim_dct_of_long_lines(host_build, shape):
    assert_agrees(OP, OP.make(((1, *shape), None), torch.float32), loss_and_gradient, "cuda")


def test_shim_dct_refuses_too_wide_images(host_build):
    strip = torch.empty(4, (1 << 24) + 4)
    with pytest.raises(ValueError, match=r"'cuda' refuses: .* a width of up to 16777216, got"):
        dct_l1(strip, strip, block=4, impl="cuda")
