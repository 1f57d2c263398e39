"""The CUDA kernels' loader and build: each way to be without them has its reason."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from espan_kernels import build_info, machine, native, span_gate

ROOT = build_info.PACKAGE.parent


def test_without_the_module(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "espan_kernels._cuda", None)
    monkeypatch.delattr("espan_kernels._cuda", raising=False)
    monkeypatch.setattr(native, "PACKAGE", tmp_path)
    (tmp_path / build_info.LEFT_OUT).write_text("no nvcc here\n")
    module, reason = native.load()
    assert module is None
    assert reason.startswith("CUDA kernels are not built (left out: no nvcc here); with nvcc: ")
    monkeypatch.setattr(native, "REASON", reason)
    assert machine.needs_cuda(torch.ones(1)) == reason
    assert reason in machine.describe()


@pytest.mark.parametrize("stale", [True, False])
def test_a_stale_module_is_refused(monkeypatch, stale):
    source_hash = "other" if stale else build_info.source_hash()
    built = SimpleNamespace(SOURCE_HASH=source_hash, DEVICE="cuda")
    monkeypatch.setitem(sys.modules, "espan_kernels._cuda", built)
    monkeypatch.setattr("espan_kernels._cuda", built, raising=False)
    module, reason = native.load()
    if stale:
        assert module is None and "built from other sources than" in reason
        assert build_info.REBUILD in reason
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
def test_half_sums_are_for_geforce(monkeypatch, name, capability, wanted, pays):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(machine, "capability", lambda index: capability)
    monkeypatch.delenv("ESPAN_HALF_SUMS", raising=False)
    if wanted:
        monkeypatch.setenv("ESPAN_HALF_SUMS", wanted)
    assert machine.half_sums_pay(torch.device("cuda", 0)) is pays


def test_a_bad_wish_for_half_sums_is_named(monkeypatch):
    monkeypatch.delenv("ESPAN_HALF_SUMS", raising=False)
    assert not machine.half_sums_pay(torch.device("cpu"))
    monkeypatch.setenv("ESPAN_HALF_SUMS", "yes")
    with pytest.raises(ValueError, match="ESPAN_HALF_SUMS: expected auto, 0 or 1, got 'yes'"):
        machine.half_sums_pay(torch.device("cpu"))


def test_the_hash_sees_every_source(tmp_path):
    (tmp_path / "common").mkdir()
    for name in ("a.cu", "common/b.cuh", "c.h", "d.cpp"):
        (tmp_path / name).write_text("1")
    before = build_info.source_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("not a source")
    assert build_info.source_hash(tmp_path) == before
    for path in build_info.source_files(tmp_path):
        path.write_text("2")
        assert build_info.source_hash(tmp_path) != before
        path.write_text("1")
    assert {p.name for p in build_info.source_files()} >= {"launchers.h", "ptx.cuh", "bindings.cpp"}


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
    """setup.py's build step, into `folder`."""
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "-b", folder, "-t", folder / "temp"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def left_out(folder) -> str:
    return (folder / "espan_kernels" / build_info.LEFT_OUT).read_text()


def test_a_build_without_kernels_says_why(tmp_path):
    assert build(tmp_path, ESPAN_CUDA="0").returncode == 0
    assert left_out(tmp_path) == "ESPAN_CUDA=0\n"


def test_a_build_without_nvcc_says_where_it_looked(tmp_path):
    assert build(tmp_path, ESPAN_CUDA="auto", NVCC="/nowhere/nvcc").returncode == 0
    assert left_out(tmp_path) == "no nvcc, looked for /nowhere/nvcc\n"
    result = build(tmp_path, ESPAN_CUDA="1", NVCC="", CUDA_HOME="/nowhere")
    assert result.returncode and "no nvcc, looked for /nowhere/bin/nvcc" in result.stderr


def test_a_failed_compile_is_noted_or_fatal(tmp_path):
    failing = {"NVCC": "false"}
    result = build(tmp_path, ESPAN_CUDA="auto", ESPAN_CUDA_ARCHS="8.0", **failing)
    assert result.returncode == 0, result.stderr
    assert left_out(tmp_path).startswith("the compile failed:")
    assert "arch=compute_80,code=sm_80 " in result.stdout + result.stderr
    assert "espan: without CUDA kernels: " in result.stdout + result.stderr
    assert build(tmp_path, ESPAN_CUDA="1", ESPAN_CUDA_ARCHS="80", **failing).returncode != 0


def test_bad_settings_are_named(tmp_path):
    result = build(tmp_path, ESPAN_CUDA="yes")
    assert result.returncode and "ESPAN_CUDA: expected auto, 0 or 1, got 'yes'" in result.stderr
    result = build(tmp_path, ESPAN_CUDA="1", ESPAN_CUDA_ARCHS="ampere", NVCC="true")
    assert "ESPAN_CUDA_ARCHS: expected numbers as in" in result.stderr
