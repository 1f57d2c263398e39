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
SPLIT_BARRIER = "    bar_sync(0, lines.threads);\n}"
READ = "    // All warps have read the lines; the signs overwrite the high parts.\n"
FOLD = "far = i < lines.odd ? difference(lines.n - 1 - i) : 0;"
# {how it shows: {(file, bug): {text: its replacement}}}
PLANTED = {
    "wrong gradient": {
        ("dct_l1.cu", "signs read while they are stored"): {
            "    bar_sync(0, lines.threads);\n    Sums back": "    Sums back"
        },
        ("dct_l1.cu", "coefficients of 0 have a sign"): {"float(x > 0)": "float(x >= 0)"},
        ("dct_l1.cu", "the way back not transposed"): {
            "multiply<true>(lines, parts, transposed": ("multiply<true>(lines, parts, matrix")
        },
        ("dct_l1.cuh", "odd sums added to both ends"): {
            "(even - odd) * scale": "(even + odd) * scale"
        },
    },
    "wrong loss": {
        ("dct_l1.cu", "signs stored while lines are read"): {
            f"{READ}    bar_sync(0, lines.threads);": ""
        },
        ("dct_l1.cuh", "no barrier after the lines"): {SPLIT_BARRIER: "}"},
        ("dct_l1.cuh", "low parts of the lines forgotten"): {
            "if constexpr (!EXACT) mma_m16n8k16(small, low[t], b[c].x, b[c].y);": ""
        },
        ("dct_l1.cuh", "low parts of the matrix forgotten"): {
            "mma_m16n8k16(small, high[t], b[c].z, b[c].w);": ""
        },
        ("dct_l1.cuh", "a line read one off"): {"lane % 16);": "(lane + 1) % 16);"},
        ("dct_l1.cu", "the middle counted twice"): {FOLD: FOLD.replace("i < lines.odd", "true")},
        ("dct_l1.cu", "partial sums of a chunk written over the last one's"): {
            "sums += pass.partials();": "",
            "1 << 22": "1 << 12",
        },
    },
    r"global\[\d+\] of 9514": {
        ("dct_l1.cu", "the far end one off"): {FOLD: FOLD.replace("- 1 ", "")},
        ("dct_l1.cuh", "lines stored beyond the last"): {"if (line >= lines.count) continue;": ""},
    },
    "deadlock in block 0: thread .* waits for ldmatrix|comes to warp_uniform, other lanes to": {
        ("dct_l1.cuh", "a lane that leaves early"): {
            "step < steps;": "step < steps - lane_id() / 31;"
        },
    },
    "deadlock in block 0: thread .* waits for a barrier": {
        ("dct_l1.cuh", "a barrier of too many"): {
            SPLIT_BARRIER: SPLIT_BARRIER.replace("threads", "threads + 32")
        },
    },
    r"dynamic shared memory, byte \[0\] of": {
        ("dct_l1.cuh", "too little shared memory"): {"return 4 * words();": "return 3 * words();"},
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


def test_shim_chunks_of_strips_change_nothing(host_build, shim_objects, monkeypatch, tmp_path):
    sr, hr = images((5, 24, 40))
    whole = [run(sr, hr, block) for block in (None, 8)]
    chunked = host.patched(shim_objects, tmp_path, "dct_l1.cu", {"1 << 22": "1 << 11"})
    monkeypatch.setattr(native, "MODULE", chunked)
    for (loss, gradient), block in zip(whole, (None, 8), strict=True):
        ours, our_gradient = run(sr, hr, block)
        assert torch.equal(gradient, our_gradient)
        torch.testing.assert_close(ours, loss, rtol=2e-7, atol=0)


@pytest.mark.parametrize("shape", [(8, 512), (200, 130)], ids=str)
def test_shim_dct_of_long_lines(host_build, shape):
    assert_agrees(OP, OP.make(((1, *shape), None), torch.float32), loss_and_gradient, "cuda")


def test_shim_dct_refuses_too_wide_images(host_build):
    strip = torch.empty(4, (1 << 24) + 4)
    with pytest.raises(ValueError, match=r"'cuda' refuses: .* a width of up to 16777216, got"):
        dct_l1(strip, strip, block=4, impl="cuda")
