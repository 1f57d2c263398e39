"""First contact: metadata, licence, the README's commands and images, import time, --help."""

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points, metadata, requires, version
from pathlib import Path

import pytest

import espan
from tests.support.makers import python

ROOT = Path(__file__).parents[2]


def test_dependencies_are_these_five_and_torch_has_no_upper_pin():
    hard = [line.replace(" ", "") for line in requires("espan") if "extra" not in line]
    names = {re.match(r"[\w-]+", line)[0] for line in hard}
    assert names == {"torch", "numpy", "pillow", "safetensors", "tqdm"}
    assert "torch>=2.6" in hard


def test_metadata():
    facts = metadata("espan")
    assert facts["Requires-Python"] == ">=3.10"
    assert facts["License-Expression"] == "Apache-2.0"
    assert version("espan") == espan.__version__
    (command,) = entry_points(group="console_scripts", name="espan")
    assert command.value == "espan.cli:main"


def test_the_main_folders_exist():
    names = ["espan_kernels", "csrc", "espan", "bench", "tests", "docs", "configs"]
    assert all((ROOT / name).is_dir() for name in names)
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:300]


def test_every_public_name_exists():
    assert all(getattr(espan, name) is not None for name in espan.__all__)
    assert set(espan.__all__) <= set(dir(espan))


def test_the_readme_upscales_an_image_of_the_repository_and_runs_the_tests():
    readme = (ROOT / "README.md").read_text()
    named = re.findall(r"espan upscale (\S+)", readme)
    assert any((ROOT / name).is_file() for name in named)
    assert "pip install" in readme and "pytest" in readme


def test_images_in_the_readme_are_small_files():
    links = re.findall(
        r"!\[[^\]]*\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"", (ROOT / "README.md").read_text()
    )
    names = [name for pair in links for name in pair if name and not name.startswith("http")]
    assert names
    assert all((ROOT / name).stat().st_size < 1_000_000 for name in names)


def test_ci_runs_pytest():
    run = ROOT / ".ci/run"
    assert os.access(run, os.X_OK)
    text = run.read_text()
    assert "pytest" in text and "torch==2.13.0" in text and "tests/support/make_believe" in text


def test_compile_gates_run_in_ci_only():
    (in_ci,) = re.findall(r"^python -m (pytest -m \w+)", (ROOT / ".ci/run").read_text(), re.M)
    for command, there in (("pytest", False), (in_ci, True)):
        arguments = [*command.split(), "-n", "0", "--collect-only", "tests/kernels/test_csrc.py"]
        listed = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert ("test_costs_are_as_recorded[" in listed.stdout) == there, listed.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["upscale", "--help"], ["--version"]], ids=str)
def test_help_does_not_import_torch(arguments):
    code = f"""
import sys
from espan.cli import main
try:
    main({arguments!r})
finally:
    assert not {{"torch", "numpy", "PIL"}} & set(sys.modules)
"""
    result = python(code)
    assert result.returncode == 0 and result.stdout and not result.stderr


def test_import_takes_a_small_fraction_of_the_time_of_torch():
    # A collection of all of torch's objects takes as long as half of espan, and falls on either.
    code = """
import gc
from time import process_time as now
gc.disable()
start = now()
import torch
middle = now()
import espan
espan.upscale, espan.load, espan.ESPAN, espan.psnr
print((now() - middle) / (middle - start))
"""
    # A ratio, because both are slower on a busy machine; 0.14 to 0.16 on two cores.
    assert any(float(python(code).stdout) < 0.2 for _ in range(8))


def test_import_of_the_package_alone_loads_nothing():
    code = "import sys, espan; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    assert python(code).returncode == 0
