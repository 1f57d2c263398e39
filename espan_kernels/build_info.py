"""Constants and the source hash shared by the builds and the loaders; imports the stdlib only.

setup.py runs this file by its path because an isolated build cannot import the package.
"""

import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parent
SOURCES = PACKAGE.parent / "csrc"
CPU_SOURCES = SOURCES / "cpu"
# A build without kernels writes the reason to these files in the package folder.
LEFT_OUT, CPU_LEFT_OUT = "cuda_left_out.txt", "cpu_left_out.txt"


def source_files(folder: Path = SOURCES) -> list[Path]:
    """The sources of the kernels: files in `folder`, in its common/ and in its wgmma/."""
    files = [each for part in (".", "common", "wgmma") for each in folder.glob(f"{part}/*")]
    return sorted(p for p in files if p.suffix in (".h", ".cuh", ".cu", ".cpp"))


def source_hash(folder: Path = SOURCES) -> str:
    """A hash of all sources."""
    digest = hashlib.sha256()
    for path in source_files(folder):
        name = path.relative_to(folder).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
