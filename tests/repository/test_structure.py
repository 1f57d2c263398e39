"""Structure: imports go one way, files are short, every op has all its files."""

import ast
from pathlib import Path

import pytest

from tests.support.imports import imports

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "espan_kernels"
OP_FILES = {"__init__", "reference", "sample", "kernel_triton", "kernel_cuda"}
FOLDERS = sorted(p for p in KERNELS.iterdir() if (p / "__init__.py").exists())

# Packages that each folder may import: csrc -> espan_kernels -> espan -> bench, tests.
ALLOWED = {
    "espan_kernels": {"espan_kernels"},
    "espan": {"espan_kernels", "espan"},
    "bench": {"espan_kernels", "espan", "bench"},
    "tests": {"espan_kernels", "espan", "bench", "tests"},
}


FILES = sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    packages = {module.split(".")[0] for module, _ in imports(path)} & {*ALLOWED}
    assert packages <= ALLOWED[package]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_and_have_a_docstring(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    if text.strip() and (path.parent in {KERNELS, *FOLDERS} or path.parts[-3] == "tests"):
        assert ast.get_docstring(ast.parse(text)), "expected a module docstring"


def test_only_kernels_import_triton():
    for path in KERNELS.rglob("*.py"):
        if any(module.split(".")[0] == "triton" for module, _ in imports(path)):
            allowed = {"kernel_triton.py", "triton_math.py", "machine.py", "tune.py"}
            assert path.name in allowed, f"{path} imports triton"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_an_op_has_all_its_files(folder):
    assert {p.stem for p in folder.glob("*.py")} - {"kernel_wgmma"} == OP_FILES
    assert (ROOT / "tests/kernels" / f"test_{folder.name}.py").exists()


def test_the_list_of_ops():
    names = {"span_gate", "conv3x3", "conv9x9_head", "tail", "spab", "dct2d"}
    assert {folder.name for folder in FOLDERS} == names
