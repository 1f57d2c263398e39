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
# Two files that use devices often. `.ci/run` finds every file that asks for one.
FILES = ("cli", "upscale")

UPSCALER = """
from espan import ESPAN, Upscaler

def test_an_upscaler():
    Upscaler(ESPAN(channels=4, blocks=1, last_convs=0){device})
"""


def with_fake_gpu(*arguments: str, devices: str = "0", **more) -> subprocess.CompletedProcess:
    """Runs Python and its subprocesses with the fake GPU."""
    path = os.pathsep.join([str(BELIEF), str(TESTS.parent)])
    notes = ("NOTE_WHO_ASKS", "PYTEST_CURRENT_TEST")
    inherited = {name: value for name, value in os.environ.items() if name not in notes}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=TESTS.parent,
        env=inherited | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": devices} | more,
        capture_output=True,
        text=True,
        check=False,
    )


def pytest_with_fake_gpu(*arguments: str, **more) -> subprocess.CompletedProcess:
    ordinary = ["-p", "no:cacheprovider", "-n", "0", "-m", "not gpu and not shared"]
    return with_fake_gpu("-m", "pytest", *ordinary, *arguments, **more)


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


ASKERS = """
import subprocess, sys, torch

COUNT = torch.cuda.device_count()

def test_here():
    torch.cuda.is_available()

def test_in_a_process():
    subprocess.run([sys.executable, "-c", "import torch; torch.cuda.device_count()"], check=True)

def test_through_torch_itself():
    with torch.random.fork_rng():  # asks how many devices there are
        torch.rand(1)

def test_the_truth_is_told():
    assert not torch.cuda.is_available()
"""


def test_tests_that_ask_are_noted(tmp_path):
    """Tests that are not noted have the same result with the fake GPU: nothing else differs."""
    (tmp_path / "test_askers.py").write_text(ASKERS)
    (tmp_path / "test_upscaler.py").write_text(UPSCALER.format(device=""))
    (tmp_path / "test_named.py").write_text(UPSCALER.format(device=', device="cpu"'))
    notes = tmp_path / "notes"
    done = pytest_with_fake_gpu(str(tmp_path), "--rootdir", str(tmp_path), NOTE_WHO_ASKS=str(notes))
    assert done.returncode == 0, done.stdout + done.stderr
    noted = [line.partition(" (call): ") for line in notes.read_text().splitlines()]
    assert sorted((test, asks) for test, _, asks in noted) == [
        ("test_askers.py: test_askers", ""),
        ("test_askers.py::test_here", "test_askers"),
        ("test_askers.py::test_in_a_process", "__main__"),
        ("test_askers.py::test_the_truth_is_told", "test_askers"),
        ("test_upscaler.py::test_an_upscaler", "espan.system.devices"),
    ]


@pytest.mark.parametrize("name", FILES)
def test_ordinary_tests_pass_with_the_fake_gpu(name):
    (path,) = TESTS.rglob(f"test_{name}.py")
    done = pytest_with_fake_gpu(str(path))
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr
