"""Ordinary tests do not depend on the machine: they pass even if "auto" finds a broken fake GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gpu import GPU

pytestmark = pytest.mark.skipif(GPU, reason="there is a real GPU, which all tests use")

TESTS = next(folder for folder in Path(__file__).parents if folder.name == "tests")
(BELIEF,) = (path.parent for path in TESTS.rglob("sitecustomize.py"))
# Two files that use devices often. `.ci/run` runs all but those of kernels and of the repository.
FILES = ("cli", "upscale")

UPSCALER = """
from espan import ESPAN, Upscaler

def test_an_upscaler():
    Upscaler(ESPAN(channels=4, blocks=1, last_convs=0){device})
"""


def with_fake_gpu(*arguments: str, devices: str = "0") -> subprocess.CompletedProcess:
    """Runs Python and its subprocesses with the fake GPU."""
    path = os.pathsep.join([str(BELIEF), str(TESTS.parent)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": devices},
        capture_output=True,
        text=True,
        check=False,
    )


def pytest_with_fake_gpu(*arguments: str) -> subprocess.CompletedProcess:
    ordinary = ["-p", "no:cacheprovider", "-n", "0", "-m", "not gpu and not shared"]
    return with_fake_gpu("-m", "pytest", *ordinary, *arguments)


@pytest.mark.parametrize(("devices", "found"), [("0", "True 1"), ("", "False 0")])
def test_the_fake_gpu_is_found_unless_hidden(devices, found):
    ask = "import torch; print(torch.cuda.is_available(), torch.cuda.device_count())"
    done = with_fake_gpu("-c", ask, devices=devices)
    assert done.stdout == f"{found}\n", done.stderr


@pytest.mark.parametrize(("device", "outcome"), [(', device="cpu"', "passed"), ("", "failed")])
def test_tests_that_use_the_fake_gpu_fail(tmp_path, device, outcome):
    """Otherwise the tests below would prove nothing."""
    path = tmp_path / "test_upscaler.py"
    path.write_text(UPSCALER.format(device=device))
    done = pytest_with_fake_gpu(str(path), "--rootdir", str(tmp_path))
    assert f"1 {outcome}" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", FILES)
def test_ordinary_tests_pass_with_the_fake_gpu(name):
    (path,) = TESTS.rglob(f"test_{name}.py")
    done = pytest_with_fake_gpu(str(path))
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr
