"""What the build of the kernels and their loaders agree on; knows neither torch nor setuptools.

setup.py runs this file by its path, as in an isolated build the package cannot be imported.
"""

import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parent
SOURCES = PACKAGE.parent / "csrc"
CPU_SOURCES = SOURCES / "cpu"
# Beside the package's modules, written where kernels were left out: the reason.
LEFT_OUT, CPU_LEFT_OUT = "cuda_left_out.txt", "cpu_left_out.txt"
REBUILD = "ESPAN_CUDA=1 pip install -e ."


def source_files(folder: Path = SOURCES) -> list[Path]:
    """The files that kernels are built from: those of `folder`, its common/ and its wgmma/."""
    files = [each for part in (".", "common", "wgmma") for each in folder.glob(f"{part}/*")]
    return sorted(p for p in files if p.suffix in (".h", ".cuh", ".cu", ".cpp"))


def source_hash(folder: Path = SOURCES) -> str:
    """Changes with any of the sources."""
    digest = hashlib.sha256()
    for path in source_files(folder):
        name = path.relative_to(folder).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
