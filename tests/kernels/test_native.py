"""The loader and build of the CUDA kernels: every reason why they can be missing."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from espan_kernels import build_info, cpu, extension, machine, native, span_gate

ROOT = build_info.PACKAGE.parent


EXTENSIONS = pytest.mark.parametrize("wanted", [extension.CUDA, extension.CPU], ids=str)


@EXTENSIONS
def test_without_the_module(monkeypatch, tmp_path, wanted):
    name = f"espan_kernels._{wanted.kind.lower()}"
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr(name, raising=False)
    monkeypatch.setattr(extension, "PACKAGE", tmp_path)
    (tmp_path / wanted.left_out).write_text("no compiler here\n")
    module, reason = extension.load(wanted)
    assert module is None
    why = f"{wanted.kind} kernels are not built (left out: no compiler here); with "
    assert reason.startswith(f"{why}{wanted.compiler}: ESPAN_{wanted.kind}=1 ")
    monkeypatch.setattr(native if wanted is extension.CUDA else cpu, "REASON", reason)
    assert reason in machine.describe()
    if wanted is extension.CUDA:
        assert machine.needs_cuda(torch.ones(1)) == reason


@EXTENSIONS
@pytest.mark.parametrize("stale", [True, False])
def test_a_stale_module_is_refused(monkeypatch, wanted, stale):
    source_hash = "other" if stale else build_info.source_hash(wanted.sources)
    built = SimpleNamespace(SOURCE_HASH=source_hash)
    monkeypatch.setitem(sys.modules, f"espan_kernels._{wanted.kind.lower()}", built)
    module, reason = extension.load(wanted)
    if stale:
        assert module is None and "built from other sources than" in reason
        assert wanted.rebuild in reason
    else:
        assert module is built and reason is None


def test_tensors_of_another_device_are_refused(monkeypatch):
    monkeypatch.setattr(native, "REASON", None)
    monkeypatch.setattr(native, "DEVICE", "cuda")
    reason = machine.needs_cuda(torch.ones(1))
    assert reason == "CUDA kernels need a cuda device, the tensors are on cpu"


@pytest.mark.parametrize(
    ("name", "capability", "wanted", "pays"),
    [
        ("NVIDIA GeForce RTX 4090", (8, 9), None, True),
        ("NVIDIA GeForce RTX 5090", (12, 0), None, True),
        ("NVIDIA GeForce RTX 4090", (8, 9), "0", False),
        ("NVIDIA A40", (8, 6), None, False),
        ("NVIDIA H200", (9, 0), None, False),
        ("NVIDIA H200", (9, 0), "1", True),
    ],
)
def test_fp16_accumulation_pays_on_geforce(monkeypatch, name, capability, wanted, pays):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(machine, "capability", lambda index: capability)
    monkeypatch.delenv("ESPAN_HALF_SUMS", raising=False)
    if wanted:
        monkeypatch.setenv("ESPAN_HALF_SUMS", wanted)
    assert machine.fp16_accumulation_pays(torch.device("cuda", 0)) is pays


def test_invalid_espan_half_sums(monkeypatch):
    monkeypatch.delenv("ESPAN_HALF_SUMS", raising=False)
    assert not machine.fp16_accumulation_pays(torch.device("cpu"))
    monkeypatch.setenv("ESPAN_HALF_SUMS", "yes")
    with pytest.raises(ValueError, match="ESPAN_HALF_SUMS: expected auto, 0 or 1, got 'yes'"):
        machine.fp16_accumulation_pays(torch.device("cpu"))


def test_hash_depends_on_every_source(tmp_path):
    for name in ("a.cu", "common/b.cuh", "wgmma/e.cuh", "c.h", "d.cpp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    before = build_info.source_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("not a source")
    assert build_info.source_hash(tmp_path) == before
    for path in build_info.source_files(tmp_path):
        path.write_text("2")
        assert build_info.source_hash(tmp_path) != before
        path.write_text("1")
    assert {p.name for p in build_info.source_files()} >= {
        *("launchers.h", "ptx.cuh", "bindings.cpp", "ring.cuh")
    }


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (2, "^span_gate: cudaErrorMemoryAllocation: .*; free memory on the device$"),
        (700, "^span_gate: cudaErrorIllegalAddress: .*; the CUDA context is lost, restart the"),
    ],
)
def test_errors_name_the_op_shim(host_build, shim_module, monkeypatch, error, message):
    monkeypatch.setattr(native, "MODULE", SimpleNamespace(**vars(shim_module)))
    monkeypatch.setattr(native.MODULE, "span_gate", lambda **arguments: error)
    with pytest.raises(native.CudaError, match=message):
        span_gate(torch.ones(2), torch.ones(2), impl="cuda")


GATE = {"x": None, "y": None, "out": None, "size": 0, "dtype": "float16", "stream": None}


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ValueError, "unknown name float64", {"dtype": "float64"}),
        (TypeError, "wrong type of argument size", {"size": "many"}),
        (TypeError, "wrong type of argument y", {"y": 1.5}),
        (TypeError, "unknown argument z", {"z": 1}),
        (TypeError, "missing argument x", {"x": ...}),
    ],
)
def test_launchers_name_a_wrong_argument_shim(shim_module, error, message, change):
    arguments = {name: value for name, value in {**GATE, **change}.items() if value is not ...}
    with pytest.raises(error, match=f"^span_gate: {message}$"):
        shim_module.span_gate(**arguments)


def build(folder, **environment) -> subprocess.CompletedProcess:
    """Runs setup.py's build steps into `folder`; CPU kernels only if `environment` asks."""
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "-b", folder, "-t", folder / "temp"],
        cwd=ROOT,
        env={**os.environ, "ESPAN_CPU": "0", **environment},
        capture_output=True,
        text=True,
    )


def left_out(folder, note: str = build_info.LEFT_OUT) -> str:
    return (folder / "espan_kernels" / note).read_text()


def test_build_without_kernels_notes_the_reason(tmp_path):
    assert build(tmp_path, ESPAN_CUDA="0").returncode == 0
    assert left_out(tmp_path) == "ESPAN_CUDA=0\n"
    assert left_out(tmp_path, build_info.CPU_LEFT_OUT) == "ESPAN_CPU=0\n"


@pytest.mark.parametrize("compiler", ["false", "/nowhere/g++"])
def test_cpu_kernels_that_do_not_compile_are_noted_or_fatal(tmp_path, compiler):
    settings = {"ESPAN_CUDA": "0", "CXX": compiler}
    assert build(tmp_path, ESPAN_CPU="auto", **settings).returncode == 0
    assert left_out(tmp_path, build_info.CPU_LEFT_OUT)
    assert not [*tmp_path.glob("espan_kernels/_cpu*.so")]
    assert build(tmp_path, ESPAN_CPU="1", **settings).returncode != 0


def test_build_without_nvcc_notes_the_searched_paths(tmp_path):
    assert build(tmp_path, ESPAN_CUDA="auto", NVCC="/nowhere/nvcc").returncode == 0
    assert left_out(tmp_path) == "no nvcc, looked for /nowhere/nvcc\n"
    result = build(tmp_path, ESPAN_CUDA="1", NVCC="", CUDA_HOME="/nowhere")
    assert result.returncode and "no nvcc, looked for /nowhere/bin/nvcc" in result.stderr


def test_failed_compilation_is_noted_or_fatal(tmp_path):
    failing = {"NVCC": "false"}
    result = build(tmp_path, ESPAN_CUDA="auto", ESPAN_CUDA_ARCHS="8.0", **failing)
    assert result.returncode == 0, result.stderr
    assert left_out(tmp_path).startswith("compilation failed:")
    assert "arch=compute_80,code=sm_80 " in result.stdout + result.stderr
    assert "espan: built without CUDA kernels: " in result.stdout + result.stderr
    assert build(tmp_path, ESPAN_CUDA="1", ESPAN_CUDA_ARCHS="80", **failing).returncode != 0


@pytest.fixture
def nvcc(tmp_path):
    """nvcc(codes): a fake compiler that lists these architectures and compiles nothing."""

    def nvcc(*codes: str) -> str:
        path = tmp_path / "nvcc"
        said = " ".join(f"sm_{code}" for code in codes)
        path.write_text(f'#!/bin/sh\ncase "$1" in --*) echo {said};; *) exit 1;; esac\n')
        path.chmod(0o755)
        return str(path)

    return nvcc


def ninja(folder, **environment) -> dict[str, dict[str, str]]:
    """{output: its inputs and variables} of the ninja file; "" has the file's own variables."""
    environment = {"ESPAN_CUDA_TRAP": "", "ESPAN_LINEINFO": "", **environment}
    assert build(folder, ESPAN_CUDA="auto", **environment).returncode == 0
    found: dict[str, dict[str, str]] = {"": {}}
    there = ""
    for line in (folder / "temp/csrc/build.ninja").read_text().splitlines():
        if line.startswith("build "):
            output, _, inputs = line.split(" ", 3)[1:]
            there = output.removesuffix(":")
            found[there] = {"inputs": inputs}
        elif " = " in line:
            name, value = line.strip().split(" = ", 1)
            found[there][name] = value
    return found


WGMMA = {f"{path.stem}.o" for path in build_info.SOURCES.glob("*_wgmma.cu")}
ALL = ("80", "86", "89", "90", "90a", "100", "120")


def linked(found: dict) -> set[str]:
    (module,) = (values for name, values in found.items() if name.endswith(".so"))
    return {*module["inputs"].split()}


@pytest.mark.parametrize(
    ("archs", "known"),
    [("80;86;89", ALL), ("8.0", ALL), ("100;120", ALL), ("", ("80", "86")), ("80;90", ("90",))],
    ids=str,
)
def test_no_wgmma_without_90_or_a_matching_nvcc(tmp_path, nvcc, archs, known):
    found = ninja(tmp_path, NVCC=nvcc(*known), ESPAN_CUDA_ARCHS=archs)
    assert linked(found) == {*found} & linked(found) and "spab.o" in linked(found)
    assert WGMMA and not WGMMA & {*found}
    assert "ESPAN_WGMMA" not in str(found) and "90a" not in str(found)


@pytest.mark.parametrize("archs", ["80;90", "9.0", "90a", ""])
def test_wgmma_is_compiled_only_for_90a(tmp_path, nvcc, archs):
    found = ninja(tmp_path, NVCC=nvcc(*ALL), ESPAN_CUDA_ARCHS=archs)
    assert "-DESPAN_WGMMA" in found[""]["flags"].split()
    assert linked(found) > WGMMA
    only = "-gencode arch=compute_90a,code=sm_90a"
    assert {name for name, values in found.items() if values.get("archs") == only} == WGMMA


@pytest.mark.parametrize(("wanted", "traps"), [("1", True), ("0", False), ("", False)])
def test_trap_build(tmp_path, nvcc, wanted, traps):
    found = ninja(tmp_path, NVCC=nvcc(*ALL), ESPAN_CUDA_ARCHS="90", ESPAN_CUDA_TRAP=wanted)
    assert ("-DESPAN_CUDA_TRAP" in found[""]["flags"].split()) == traps


def test_invalid_settings(tmp_path):
    result = build(tmp_path, ESPAN_CUDA="yes")
    assert result.returncode and "ESPAN_CUDA: expected auto, 0 or 1, got 'yes'" in result.stderr
    result = build(tmp_path, ESPAN_CUDA="1", ESPAN_CUDA_ARCHS="ampere", NVCC="true")
    assert "ESPAN_CUDA_ARCHS: expected numbers like" in result.stderr
