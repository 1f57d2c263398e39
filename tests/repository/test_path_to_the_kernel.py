"""Each file that docs/python.md lists from `espan.upscale` to the kernel imports the next one."""

import re
from itertools import pairwise
from pathlib import Path

import espan
from tests.support.imports import import_graph

ROOT = Path(__file__).parents[2]
# Runners do not import backends; this module selects them.
SELECTOR = "espan.backends.select"


def listed() -> list[str]:
    page = (ROOT / "docs/python.md").read_text()
    section = re.search(r"^## From `espan\.upscale`.*?(?=^## )", page, re.M | re.S)[0]
    return re.findall(r"^\| `([\w/.]+)` \|", section, re.M)


def module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def test_there_are_six_files_from_the_function_to_its_kernel():
    files = listed()
    assert len(files) == 6 and all((ROOT / file).is_file() for file in files)
    assert module(files[0]) == espan.upscale.__module__


def test_each_file_imports_the_next_or_its_selector():
    graph = import_graph(ROOT, ["espan", "espan_kernels"])
    for importer, imported in pairwise(module(file) for file in listed()):
        near = graph[importer] | (graph[SELECTOR] if SELECTOR in graph[importer] else set())
        assert imported in near, f"{importer} does not import {imported}"


def test_the_last_file_launches_the_kernel():
    (name,) = re.findall(r"native\.call\(\s*\"(\w+)\"", (ROOT / listed()[-1]).read_text())
    assert re.search(rf"^cudaError_t {name}\(", (ROOT / "csrc/spab.cu").read_text(), re.M)
