"""Builds the CUDA extension: ninja runs nvcc on csrc.

ESPAN_CUDA: auto (build if nvcc works), 0 (skip), 1 (fail without nvcc); ESPAN_CUDA_ARCHS:
architectures such as "80;90", with PTX for the last one; ESPAN_LINEINFO=1: source lines for
profilers and sanitizers; ESPAN_CUDA_TRAP=1: sm_90a kernels trap instead of waiting forever; NVCC,
CUDA_HOME, CXX: the compilers; MAX_JOBS: the number of parallel jobs.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

BUILD = runpy.run_path(str(Path(__file__).parent / "espan_kernels" / "build_info.py"))
ARCHS = "80;86;89;90;100;120"
# The only target of *_wgmma.cu.
WGMMA = "-gencode arch=compute_90a,code=sm_90a"
WANTED = os.environ.get("ESPAN_CUDA", "auto")
SOURCES = Path(__file__).parent.resolve() / "csrc"

RULES = """
rule compile
  command = $nvcc -std=c++17 -O3 -I$root $archs $flags -MD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = $nvcc -shared --cudart static $flags $in -o $out
"""


def find_nvcc() -> Path:
    """nvcc from NVCC if set, else from CUDA_HOME, else from PATH or NVIDIA's default location."""
    home = os.environ.get("CUDA_HOME")
    names = [os.environ.get("NVCC") or (f"{home}/bin/nvcc" if home else "nvcc")]
    if names == ["nvcc"]:
        names.append("/usr/local/cuda/bin/nvcc")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError(f"no nvcc, looked for {' and '.join(names)}")
    return Path(found).resolve()


def architectures(nvcc: Path) -> list[str]:
    """The architectures to compile for: ESPAN_CUDA_ARCHS, or the defaults that nvcc supports."""
    requested = os.environ.get("ESPAN_CUDA_ARCHS")
    archs = re.findall(r"\d+a?", (requested or ARCHS).replace(".", ""))  # accept 9.0 for 90
    if not requested:
        known = listing(nvcc, "--list-gpu-code").split()
        archs = [arch for arch in archs if f"sm_{arch}" in known]
    if not archs:
        raise RuntimeError(f"ESPAN_CUDA_ARCHS: expected numbers like {ARCHS!r}, got {requested!r}")
    return archs


def listing(nvcc: Path, option: str) -> str:
    return subprocess.run([nvcc, option], capture_output=True, text=True).stdout


def has_wgmma(nvcc: Path, archs: list[str]) -> bool:
    """Whether to build the sm_90a kernels: 9.0 is requested and nvcc supports sm_90a."""
    return bool({"90", "90a"} & {*archs}) and "sm_90a" in listing(nvcc, "--help")


def ninja_file(nvcc: Path, module: Path) -> str:
    """The ninja file: one object per source, linked into `module`."""
    import pybind11

    archs = architectures(nvcc)
    codes = [f"-gencode arch=compute_{arch},code=sm_{arch}" for arch in archs]
    codes.append(f"-gencode arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    flags = ["-Xcompiler -fPIC,-fvisibility=hidden"]
    flags += ["-DESPAN_WGMMA"] * has_wgmma(nvcc, archs)
    flags += ["-DESPAN_CUDA_TRAP"] * (os.environ.get("ESPAN_CUDA_TRAP") == "1")
    if os.environ.get("ESPAN_LINEINFO") == "1":
        flags.append("-lineinfo")
    if "CXX" in os.environ:
        flags.append(f"-ccbin {os.environ['CXX']}")
    values = {"nvcc": nvcc, "root": SOURCES, "archs": " ".join(codes), "flags": " ".join(flags)}
    lines = [f"{name} = {value}" for name, value in values.items()] + [RULES]
    sources = sorted(SOURCES.glob("*.cu"))
    if not has_wgmma(nvcc, archs):
        sources = [source for source in sources if not source.stem.endswith("_wgmma")]
    for source in sources:
        lines.append(f"build {source.stem}.o: compile {source}")
        lines += [f"  archs = {WGMMA}"] * source.stem.endswith("_wgmma")
    sources.append(SOURCES / "bindings.cpp")
    lines.append(f"build bindings.o: compile {sources[-1]}")
    # Variables of the build statement for bindings.o.
    headers = f"-I{sysconfig.get_path('include')} -I{pybind11.get_include()}"
    name = f"-DESPAN_SOURCE_HASH='\"{BUILD['source_hash'](SOURCES)}\"'"
    lines.append(f"  archs =\n  flags = $flags {headers} {name}")
    lines.append(f"build {module}: link {' '.join(f'{source.stem}.o' for source in sources)}\n")
    return "\n".join(lines)


class BuildCuda(build_ext):
    def run(self):
        module = Path(self.get_ext_fullpath("espan_kernels._cuda")).resolve()
        module.parent.mkdir(parents=True, exist_ok=True)
        note = module.with_name(BUILD["LEFT_OUT"])
        note.unlink(missing_ok=True)
        try:
            if WANTED == "0":
                raise RuntimeError("ESPAN_CUDA=0")
            self.compile(module)
        except (OSError, ImportError, RuntimeError) as error:
            if WANTED == "1":
                raise
            module.unlink(missing_ok=True)
            note.write_text(f"{error}\n")
            print(f"espan: without CUDA kernels: {error}", file=sys.stderr)

    def compile(self, module: Path):
        folder = Path(self.build_temp).resolve() / "csrc"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text(ninja_file(find_nvcc(), module))
        jobs = ["-j", os.environ["MAX_JOBS"]] if "MAX_JOBS" in os.environ else []
        ninja = shutil.which("ninja")
        if ninja is None:
            raise RuntimeError("no ninja on PATH")
        command = [ninja, "-C", folder, *jobs]
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        print(result.stdout)
        if result.returncode:
            raise RuntimeError(f"compilation failed:\n{result.stdout[-2000:].strip()}")


if WANTED not in ("auto", "0", "1"):
    raise SystemExit(f"ESPAN_CUDA: expected auto, 0 or 1, got {WANTED!r}")
sources = [str(path.relative_to(SOURCES.parent)) for path in BUILD["source_files"](SOURCES)]
setup(
    ext_modules=[Extension("espan_kernels._cuda", sources=sources)],
    cmdclass={"build_ext": BuildCuda},
)
