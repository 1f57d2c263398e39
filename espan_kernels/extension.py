"""Loads the extension modules of the kernels, or says why they are missing."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from espan_kernels.build_info import (
    CPU_LEFT_OUT,
    CPU_SOURCES,
    LEFT_OUT,
    PACKAGE,
    SOURCES,
    source_hash,
)


class Extension(NamedTuple):
    """An extension module: the note of a build without it, its sources and its compiler."""

    kind: str
    left_out: str
    sources: Path
    header: str
    compiler: str

    @property
    def rebuild(self) -> str:
        return f"ESPAN_{self.kind}=1 pip install -e ."


CUDA = Extension("CUDA", LEFT_OUT, SOURCES, "launchers.h", "nvcc")
CPU = Extension("CPU", CPU_LEFT_OUT, CPU_SOURCES, "layers.h", "g++")


def load(extension: Extension) -> tuple[Any, str | None]:
    """(the module, None), or (None, the reason why it is unavailable)."""
    kind, sources = extension.kind, extension.sources
    name = f"espan_kernels._{kind.lower()}"
    try:
        built = import_module(name)
    except ImportError as error:
        note = PACKAGE / extension.left_out
        if note.exists():
            why = f"not built (left out: {note.read_text().strip()})"
        elif find_spec(name) is None:
            why = "not built"
        else:
            why = f"not loadable ({error})"
        return None, f"{kind} kernels are {why}; with {extension.compiler}: {extension.rebuild}"
    # Only a source checkout has csrc next to the package.
    if sources.exists() and source_hash(sources) != built.SOURCE_HASH:
        return (
            None,
            f"{kind} kernels were built from other sources than {sources}; {extension.rebuild}",
        )
    return built, None
