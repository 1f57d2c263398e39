"""Builds csrc for the CPU with csrc/host: the extension module for tests without a GPU."""

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import torch

from espan_kernels.build_info import SOURCES

# torch includes pybind11's headers.
INCLUDES = [sysconfig.get_path("include"), Path(torch.__file__).parent / "include", SOURCES]
FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-DESPAN_SHIM", "-DESPAN_WGMMA"]


def missing() -> str | None:
    """Why the host build is impossible here, or None."""
    return None if shutil.which("g++") else "no g++ on PATH"


def run(*command):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]


def compile_source(source: Path, folder: Path, flag: str) -> Path:
    out = folder / f"{source.stem}.o"
    # A patched header is in the source's folder, which is searched first.
    includes = [f"-I{include}" for include in (source.parent, *INCLUDES)]
    # pybind11 takes long to optimise and is fast enough without.
    extra = ["-O0", '-DESPAN_SOURCE_HASH="host"'] if source.suffix == ".cpp" else ["-x", "c++"]
    run("g++", *FLAGS, flag, *extra, *includes, "-c", source, "-o", out)
    return out


def objects(folder: Path) -> dict[str, Path]:
    """{source: its object} for unpatched csrc; reuses objects in `folder`."""
    folder.mkdir(exist_ok=True)
    sources = [*sorted(SOURCES.glob("*.cu")), SOURCES / "bindings.cpp"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        built = pool.map(lambda source: _compiled(source, folder), sources)
        return {source.name: made for source, made in zip(sources, built, strict=True)}


def _compiled(source: Path, folder: Path) -> Path:
    there = folder / f"{source.stem}.o"
    return there if there.exists() else compile_source(source, folder, "-O2")


def load(built: dict[str, Path], folder: Path) -> ModuleType:
    """Links these objects in `folder` and loads the module."""
    path = folder / "_cuda.so"
    run("g++", "-shared", *built.values(), "-o", path)
    # A unique name, because pybind11 caches modules by name.
    spec = importlib.util.spec_from_file_location(f"{folder.name}._cuda", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def patched(
    built: dict[str, Path],
    folder: Path,
    source: str,
    changes: dict,
    header: str = "",
) -> ModuleType:
    """The module with each text of `changes` replaced.

    The text must occur once in `source`, or in `header`, a path in csrc included by `source`. Built
    without optimisation, because the module runs only once or twice.
    """
    changed = header or source
    text = (SOURCES / changed).read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"{changed} has {text.count(old)} times {old!r}"
        text = text.replace(old, new)
    # All headers beside it: one finds the next in its own folder first.
    for path in (SOURCES / source, *SOURCES.glob("*.cuh")):
        (folder / path.name).write_text(path.read_text())
    copy = folder / source
    (folder / changed).parent.mkdir(exist_ok=True)
    (folder / changed).write_text(text)
    # First, because the linker uses the first of several equal template instances.
    ours = {source: compile_source(copy, folder, "-O0")}
    return load(ours | built | ours, folder)
