"""Tests of the GPU suite: it skips with a reason, and each check fails for wrong kernels.

Uses span_gate and dct_l1 in the host build, and fakes for `Upscaler`.
"""

import ctypes
import re
import subprocess
import sys
import time
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from espan_kernels import OPS, native
from espan_kernels.build_info import PACKAGE
from tests.support import gpu_checks
from tests.support import shim as host
from tests.support.gpu import GPU

pytestmark = pytest.mark.skipif(GPU, reason="the suite itself runs here")

# Packages that a machine running the suite may lack.
ABSENT = ["PIL", "safetensors", "tqdm", "scipy", "skimage", "yaml"]


def collected(*options: str) -> subprocess.CompletedProcess:
    """Runs the suite in a Python process without the packages ABSENT."""
    code = f"""
import sys
for name in {ABSENT}:
    sys.modules[name] = None
import pytest
options = ["-o", "addopts=-q", "-p", "no:cacheprovider", *sys.argv[1:]]
sys.exit(pytest.main(["tests/kernels/test_gpu.py", *options]))
"""
    command = [sys.executable, "-c", code, *options]
    return subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)


def test_suite_is_skipped_with_a_reason_without_gpu():
    result = collected("-rs", "-m", "gpu")
    assert result.returncode == 0, result.stdout + result.stderr
    reasons = re.findall(r"SKIPPED \[(\d+)\] \S+ (.*)", result.stdout)
    assert {reason for _, reason in reasons} == {"no CUDA device"}
    (skipped,) = re.findall(r"^(\d+) skipped in", result.stdout, re.M)
    kernels = sum(kernel.run is not None for op in OPS.values() for kernel in op.kernels)
    assert sum(int(n) for n, _ in reasons) == int(skipped) > 12 * kernels


# Number of runs between wrong ones.
ANOTHER = {"is another now and then": 40, "is another the second time": 2}


def span_gate(module, to: str):
    """The host build's launcher with a defect."""
    runs, kept = count(), {}

    def launch(*, x, y, out, size, **rest):
        if to == "leaves the last":
            size -= 1
        elif to == "writes one more":
            ctypes.memset(out + 2 * size, 0, 2)
        elif to == "reads beside":
            y += 16
        elif to in ANOTHER and next(runs) % ANOTHER[to] == ANOTHER[to] - 1:
            x, y = y, x
        elif to == "shares a buffer":
            kept["x"] = x
            time.sleep(1e-3)
            x = kept["x"]
        return module.span_gate(x=x, y=y, out=out, size=size, **rest)

    return launch


@pytest.fixture
def launch_wrongly(host_build, shim_module, monkeypatch):
    def use(to: str):
        wrong = SimpleNamespace(**vars(shim_module))
        wrong.span_gate = span_gate(shim_module, to)
        monkeypatch.setattr(native, "MODULE", wrong)
        monkeypatch.setitem(gpu_checks.LARGE, "span_gate", [(2, 3, 5, 7)])
        monkeypatch.setattr(gpu_checks, "RERUNS", 60)
        monkeypatch.setattr(gpu_checks, "RUNS_PER_THREAD", 5)

    return use


SUBJECT = OPS["span_gate"], "cuda", torch.float16, "cpu"
WRONG = [
    (gpu_checks.check_agrees, "leaves the last", "error nan"),
    (gpu_checks.check_agrees, "writes one more", "wrote outside of its output"),
    (gpu_checks.check_agrees, "reads beside", "error"),
    (gpu_checks.check_reruns, "is another now and then", "rerun 38: .* numbers differ"),
    (gpu_checks.check_stream, "is another the second time", "on another stream: .* numbers differ"),
    (gpu_checks.check_threads, "shares a buffer", r"thread \d: .* numbers differ"),
]


@pytest.mark.parametrize("check", gpu_checks.CHECKS, ids=lambda f: f.__name__)
def test_checks_pass_a_correct_kernel_shim(launch_wrongly, check):
    launch_wrongly("nothing")
    check(*SUBJECT)


@pytest.mark.parametrize(("check", "wrong", "message"), WRONG, ids=[f"{w[1]}" for w in WRONG])
def test_checks_fail_a_wrong_kernel_shim(launch_wrongly, check, wrong, message):
    launch_wrongly(wrong)
    with pytest.raises(AssertionError, match=message):
        check(*SUBJECT)


@pytest.mark.parametrize("shape, block", [((2, 67, 71), None), ((2, 16, 24), 8)], ids=str)
def test_dct_gradient_passes_shim(host_build, shape, block):
    gpu_checks.check_dct_gradient(shape, block, "cuda", "cpu")


def test_dct_gradient_check_fails_single_float16_products_shim(
    host_build, shim_objects, monkeypatch, tmp_path
):
    low = "if constexpr (!EXACT) mma_m16n8k16(small, low, b[c].x, b[c].y);"
    module = host.patched(shim_objects, tmp_path, "dct_l1.cu", {low: ""}, "dct_l1.cuh")
    monkeypatch.setattr(native, "MODULE", module)
    with pytest.raises(AssertionError, match="off by"):
        gpu_checks.check_dct_gradient((2, 40, 44), None, "cuda", "cpu")


def test_kernel_that_refuses_everything_gives_reasons():
    assert gpu_checks.refusals(OPS["conv3x3"], "cuda", torch.float32, "cpu")


class Fake:
    """Upscales x4 by repetition; `wrong` selects a typical executor bug."""

    def __init__(self, wrong: str = ""):
        self.wrong, self.runs, self.buffer = wrong, count(), None

    def __call__(self, image):
        if isinstance(image, list):
            # A graph per shape whose input is not refilled.
            return [self(image[0] if self.wrong == "batch" else each) for each in image]
        if self.wrong == "threads":
            self.buffer = image
            time.sleep(1e-3)
            image = self.buffer
        if self.wrong == "reruns" and next(self.runs) == 100:
            image = image[::-1]
        if isinstance(image, torch.Tensor):
            if image.ndim == 4:
                return torch.stack(self([*image]))
            big = image.repeat_interleave(4, 1).repeat_interleave(4, 2)
            return big + (self.wrong == "stream") * next(self.runs)
        big = image.repeat(4, 0).repeat(4, 1)
        return np.roll(big, 4, 1) if self.wrong == "agrees" else big


UPSCALER_CHECKS = {
    "agrees": lambda fake: gpu_checks.check_upscaler_agrees(fake, Fake()),
    "reruns": gpu_checks.check_upscaler_reruns,
    "batch": gpu_checks.check_upscaler_batch,
    "stream": lambda fake: gpu_checks.check_upscaler_stream(fake, "cpu"),
    "threads": gpu_checks.check_upscaler_threads,
}


@pytest.mark.parametrize("name", UPSCALER_CHECKS)
def test_checks_of_an_upscaler(name):
    UPSCALER_CHECKS[name](Fake())
    with pytest.raises(AssertionError):
        UPSCALER_CHECKS[name](Fake(name))


def test_one_pixel_may_be_two_levels_off(monkeypatch):
    monkeypatch.setattr(gpu_checks, "SIZES", [(64, 64)])

    def off_by(levels):
        def upscaler(image):
            out = image // 2
            out[0, 0, 0] += levels
            return out

        return upscaler

    gpu_checks.check_upscaler_agrees(off_by(2), off_by(0))
    with pytest.raises(AssertionError, match=r"\(64, 64\): 3, 0.000"):
        gpu_checks.check_upscaler_agrees(off_by(3), off_by(0))
