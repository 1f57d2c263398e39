"""Builds the extensions: ninja runs nvcc on csrc, the host compiler compiles csrc/cpu.

ESPAN_CUDA, ESPAN_CPU: auto (build if the compiler works, else install without), 0 (skip), 1 (fail
if it cannot be built); ESPAN_CUDA_ARCHS: architectures such as "80;90", with PTX for the last one;
ESPAN_LINEINFO=1: source lines for profilers and sanitizers; ESPAN_CUDA_TRAP=1: sm_90a kernels trap
instead of waiting forever; NVCC, CUDA_HOME, CXX: the compilers; MAX_JOBS: the number of parallel
jobs.
"""

import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

BUILD = runpy.run_path(str(Path(__file__).parent / "espan_kernels" / "build_info.py"))
# 8.9 runs the machine code of 8.6: its own has the same instructions in the same order.
ARCHS = "80;86;90;100;120"
# The only target of *_wgmma.cu.
WGMMA = "-gencode arch=compute_90a,code=sm_90a"
WANTED = {kind: os.environ.get(f"ESPAN_{kind}", "auto") for kind in ("CUDA", "CPU")}
SOURCES = Path(__file__).parent.resolve() / "csrc"
# Sources of the CPU kernels and what they are compiled for. Objects are linked in this order, the
# oldest processors first: of a template of the standard library that several of them contain, the
# linker takes the first copy, which then runs wherever the others do.
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl"))]
BF16 = [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]
CPU_FLAGS = {"bindings": [], "avx2": AVX2, "avx512": AVX512, "bf16": BF16}

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
        known = nvcc_output(nvcc, "--list-gpu-code").split()
        archs = [arch for arch in archs if f"sm_{arch}" in known]
    if not archs:
        raise RuntimeError(f"ESPAN_CUDA_ARCHS: expected numbers like {ARCHS!r}, got {requested!r}")
    return archs


def nvcc_output(nvcc: Path, option: str) -> str:
    return subprocess.run([nvcc, option], capture_output=True, text=True).stdout


def has_wgmma(nvcc: Path, archs: list[str]) -> bool:
    """Whether to build the sm_90a kernels: 9.0 is requested and nvcc supports sm_90a."""
    return bool({"90", "90a"} & {*archs}) and "sm_90a" in nvcc_output(nvcc, "--help")


def ninja_file(nvcc: Path, module: Path) -> str:
    """The contents of build.ninja: one object per source, linked into `module`."""
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


class BuildPython(build_py):
    """Copies the recipes into the package; an editable install reads those of the checkout."""

    def run(self):
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib) / "espan" / "configs"
            folder.mkdir(parents=True, exist_ok=True)
            for recipe in (SOURCES.parent / "configs").glob("*.yaml"):
                self.copy_file(str(recipe), str(folder / recipe.name))


def compile_cpu(module: Path, folder: Path) -> None:
    """Builds csrc/cpu; bindings.cpp runs on any processor, the others if it has what they need."""
    import pybind11

    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise RuntimeError(f"expected Linux on x86-64, got {sys.platform} on {platform.machine()}")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise RuntimeError("no g++ on PATH")
    cpu = SOURCES / "cpu"
    name = f'-DESPAN_SOURCE_HASH="{BUILD["source_hash"](cpu)}"'
    headers = [f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}", name]
    folder.mkdir(parents=True, exist_ok=True)
    common = [compiler, "-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden"]
    objects = []
    for source, flags in CPU_FLAGS.items():
        objects.append(folder / f"{source}.o")
        extra = headers if source == "bindings" else []
        run_tool([*common, *flags, *extra, "-c", cpu / f"{source}.cpp", "-o", objects[-1]])
    run_tool([compiler, "-shared", "-pthread", *objects, "-o", module])


def run_tool(command: list) -> None:
    """Runs a compiler; if it fails, raises RuntimeError with the end of its output."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(result.stdout)
    if result.returncode:
        raise RuntimeError(f"compilation failed:\n{result.stdout[-2000:].strip()}")


class BuildKernels(build_ext):
    def run(self):
        self.build("CUDA", "espan_kernels._cuda", BUILD["LEFT_OUT"], self.compile_cuda)
        folder = Path(self.build_temp).resolve() / "csrc/cpu"
        compile_module = partial(compile_cpu, folder=folder)
        self.build("CPU", "espan_kernels._cpu", BUILD["CPU_LEFT_OUT"], compile_module)

    def build(self, kind: str, name: str, note: str, compile_module) -> None:
        module = Path(self.get_ext_fullpath(name)).resolve()
        module.parent.mkdir(parents=True, exist_ok=True)
        note = module.with_name(note)
        note.unlink(missing_ok=True)
        try:
            if WANTED[kind] == "0":
                raise RuntimeError(f"ESPAN_{kind}=0")
            compile_module(module)
        except (OSError, ImportError, RuntimeError) as error:
            if WANTED[kind] == "1":
                raise
            module.unlink(missing_ok=True)
            note.write_text(f"{error}\n")
            print(f"espan: built without {kind} kernels: {error}", file=sys.stderr)

    def compile_cuda(self, module: Path) -> None:
        folder = Path(self.build_temp).resolve() / "csrc"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text(ninja_file(find_nvcc(), module))
        jobs = ["-j", os.environ["MAX_JOBS"]] if "MAX_JOBS" in os.environ else []
        ninja = shutil.which("ninja")
        if ninja is None:
            raise RuntimeError("no ninja on PATH")
        run_tool([ninja, "-C", folder, *jobs])


for kind, wanted in WANTED.items():
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"ESPAN_{kind}: expected auto, 0 or 1, got {wanted!r}")
folders = {"_cuda": SOURCES, "_cpu": SOURCES / "cpu"}
setup(
    ext_modules=[
        Extension(
            f"espan_kernels.{name}",
            sources=[str(p.relative_to(SOURCES.parent)) for p in BUILD["source_files"](folder)],
        )
        for name, folder in folders.items()
    ],
    cmdclass={"build_py": BuildPython, "build_ext": BuildKernels},
)
