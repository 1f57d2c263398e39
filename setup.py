"""The one build step: ninja runs nvcc over csrc, which hands bindings.cpp to the host compiler.

ESPAN_CUDA: auto (build the kernels if nvcc is there and works), 0 (do not), 1 (fail without);
ESPAN_CUDA_ARCHS: as "80;90", the first architectures to have machine code for, the last has PTX
as well; ESPAN_LINEINFO: 1 for profilers and sanitizers, which then name lines of source;
ESPAN_CUDA_TRAP: 1 for kernels of sm_90a that end themselves where they would wait forever; NVCC,
CUDA_HOME, CXX: which compilers; MAX_JOBS: how many run at once.
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
from setuptools.command.build_py import build_py

BUILD = runpy.run_path(str(Path(__file__).parent / "espan_kernels" / "build_info.py"))
ARCHS = "80;86;89;90;100;120"
# What *_wgmma.cu are compiled for, and nothing else is.
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
    """NVCC if that is set, else CUDA_HOME/bin/nvcc if that is, else on PATH or NVIDIA's place."""
    home = os.environ.get("CUDA_HOME")
    names = [os.environ.get("NVCC") or (f"{home}/bin/nvcc" if home else "nvcc")]
    if names == ["nvcc"]:
        names.append("/usr/local/cuda/bin/nvcc")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError(f"no nvcc, looked for {' and '.join(names)}")
    return Path(found).resolve()


def architectures(nvcc: Path) -> list[str]:
    """Those to have machine code for, as far as nvcc knows them."""
    wanted = os.environ.get("ESPAN_CUDA_ARCHS")
    archs = re.findall(r"\d+a?", (wanted or ARCHS).replace(".", ""))  # 9.0, as others write it
    if not wanted:
        known = listing(nvcc, "--list-gpu-code").split()
        archs = [arch for arch in archs if f"sm_{arch}" in known]
    if not archs:
        raise RuntimeError(f"ESPAN_CUDA_ARCHS: expected numbers as in {ARCHS!r}, got {wanted!r}")
    return archs


def listing(nvcc: Path, option: str) -> str:
    return subprocess.run([nvcc, option], capture_output=True, text=True).stdout


def has_wgmma(nvcc: Path, archs: list[str]) -> bool:
    """Whether the kernels for sm_90a are built: with those for 9.0, by an nvcc that knows it."""
    return bool({"90", "90a"} & {*archs}) and "sm_90a" in listing(nvcc, "--help")


def ninja_file(nvcc: Path, module: Path) -> str:
    """The whole build: an object per source, linked into `module`."""
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
    # These belong to the line of the bindings.
    headers = f"-I{sysconfig.get_path('include')} -I{pybind11.get_include()}"
    name = f"-DESPAN_SOURCE_HASH='\"{BUILD['source_hash'](SOURCES)}\"'"
    lines.append(f"  archs =\n  flags = $flags {headers} {name}")
    lines.append(f"build {module}: link {' '.join(f'{source.stem}.o' for source in sources)}\n")
    return "\n".join(lines)


class BuildPython(build_py):
    """Puts the recipes into the package; an editable install reads those of the checkout."""

    def run(self):
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib) / "espan" / "configs"
            folder.mkdir(parents=True, exist_ok=True)
            for recipe in (SOURCES.parent / "configs").glob("*.yaml"):
                self.copy_file(str(recipe), str(folder / recipe.name))


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
            raise RuntimeError(f"the compile failed:\n{result.stdout[-2000:].strip()}")


if WANTED not in ("auto", "0", "1"):
    raise SystemExit(f"ESPAN_CUDA: expected auto, 0 or 1, got {WANTED!r}")
sources = [str(path.relative_to(SOURCES.parent)) for path in BUILD["source_files"](SOURCES)]
setup(
    ext_modules=[Extension("espan_kernels._cuda", sources=sources)],
    cmdclass={"build_py": BuildPython, "build_ext": BuildCuda},
)
