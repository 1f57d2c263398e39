"""`espan doctor`: its lines, its running time, and the private names that it leaves out."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from espan.cli import diagnosis, main
from espan.options import BACKENDS
from espan_kernels import OPS, cpu, native


@pytest.fixture(scope="module")
def examined() -> tuple[diagnosis.Facts, float]:
    """The facts, and the CPU seconds that they took."""
    began = time.process_time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        return diagnosis.examine(), time.process_time() - began


@pytest.fixture
def facts(examined) -> diagnosis.Facts:
    return examined[0]


def test_every_op_and_implementation_is_in_one_line(facts):
    for op in OPS:
        for impl in ("cuda", "triton", "eager"):
            wanted = rf"{impl}: .+\((every op|(.+, )?{op}(, .+)?)\)"
            named = [line for line in facts["kernels"] if re.fullmatch(wanted, line)]
            assert len(named) == 1, "expected one line, with a reason or that it runs"


def test_every_reason_is_given_once(facts):
    reasons = [line.split(" (")[0] for line in facts["kernels"]]
    assert len(reasons) == len(set(reasons))


def test_units_of_the_cpu_kernels_are_named(facts, monkeypatch):
    _, kernels = facts["cpu"]
    for dtype in cpu.UNITS:
        if unit := cpu.unit(dtype):
            assert f"{unit} in {str(dtype).removeprefix('torch.')}" in kernels
    monkeypatch.setattr(cpu, "unit", lambda dtype: None)
    monkeypatch.setattr(cpu, "REASON", None)
    assert diagnosis._processor()[1] == "CPU kernels: none for this processor"
    monkeypatch.setattr(cpu, "REASON", "CPU kernels are not built")
    assert diagnosis._processor()[1] == "CPU kernels are not built"


def test_every_backend_is_timed_or_has_a_reason(facts):
    results = dict(line.split(": ", 1) for line in facts["backends"])
    assert tuple(results) == BACKENDS
    assert re.match(r"\d+ ms for 256 x 256 to x4 in \w+, ready after [\d.]+ s", results["auto"])
    assert "ms for" in results["eager"]
    for name in diagnosis.SLOW:
        assert "--all" in results[name]
    assert all(results.values())


def test_slow_backends_are_timed_on_request(monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(diagnosis, "BACKENDS", ("onnx",))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (line,) = diagnosis.examine(slow=True)["backends"]
    assert re.match(r"onnx: \d+ ms .* in float32", line)


def test_a_backend_that_fails_has_a_line_like_the_others(monkeypatch):
    class Broken:
        def __init__(self, *_args, **_options):
            raise OSError("libfoo.so.1: cannot open shared object file")

    monkeypatch.setattr(diagnosis, "Upscaler", Broken)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    lines = diagnosis.examine()["backends"]
    assert "eager: failed: libfoo.so.1: cannot open shared object file" in lines


def test_examine_takes_less_than_10_s(examined):
    assert examined[1] < 10


def test_extras_show_versions_or_the_install_command(monkeypatch):
    needed = [
        "torch>=2.6",
        'numpy>=1; extra == "video"',
        'surely-not-there; extra == "demo"',
        'numpy; extra == "demo"',
    ]
    monkeypatch.setattr(diagnosis.importlib.metadata, "requires", lambda name: needed)
    monkeypatch.setattr(diagnosis, "BACKENDS", ())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    video, demo = diagnosis.examine()["extras"]
    assert re.fullmatch(r"video: numpy [\d.]+", video)
    assert demo == "demo: no surely-not-there: pip install 'espan[demo]'"


def test_a_report_names_no_folder_user_or_machine(tmp_path):
    home = tmp_path / "home of" / "jane-q-doe"
    tools = home / "my tools" / "cuda"
    tools.mkdir(parents=True)
    nvcc = tools / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.9, V12.9.86'\n")
    nvcc.chmod(0o755)
    environment = os.environ | {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "USER": "jqdoe",
        "CUDA_VISIBLE_DEVICES": "",
        "LOGNAME": "jqdoe",
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "ESPAN_SHARED": str(home / "images"),
        "ESPAN_NOTE": "made by jqdoe at secret-host",
    }
    code = """
import platform, sys
from espan.cli import diagnosis, main
from espan_kernels import native
platform.node = lambda: "secret-host"
diagnosis.BACKENDS = ("eager", "cuda")
native.REASON = f"CUDA kernels are not built (looked in {sys.argv[1]}/x.so, {sys.prefix}/lib)"
main(["doctor", *sys.argv[2:]])
"""

    def report(*options: str) -> str:
        command = [sys.executable, "-c", code, str(home / "builds"), *options]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment
        ).stdout

    private = ("jane", "jqdoe", "secret-host", "my tools", "home of", str(tmp_path), sys.prefix)
    shown = report("--json")
    assert not [word for word in private if word in shown]
    assert "12.9" in shown and "CUDA kernels are not built" in shown
    assert not re.search(r"(?<![\w<>])/\w+/\w", shown)
    with_paths = json.loads(report("--json", "--paths"))
    assert with_paths["nvcc"] == f"12.9, {nvcc}"
    assert with_paths["settings"] == [
        "ESPAN_NOTE=made by jqdoe at secret-host",
        f"ESPAN_SHARED={home / 'images'}",
    ]


def test_paths_are_replaced_in_any_context(monkeypatch):
    monkeypatch.setattr(diagnosis.platform, "node", lambda: "")
    package = Path(diagnosis.__file__).parents[2]
    lines = {
        "(looked for /usr/local/cuda/bin/nvcc)": "(looked for <path>)",
        "lib='/opt/x y/z.so'": "lib='<path> y/z.so'",
        f"built from {package}/csrc; again": "built from <path>; again",
        r"C:\Users\me\nvcc.exe is no program": "<path> is no program",
        "12 ms for 256 x 256, fp16/bf16, and/or": "12 ms for 256 x 256, fp16/bf16, and/or",
    }
    cleaned = diagnosis._without_names({"lines": [*lines]})
    assert cleaned["lines"] == [*lines.values()]


def test_text_and_json_have_the_same_lines(capsys, monkeypatch):
    monkeypatch.setattr(diagnosis, "BACKENDS", ("cuda",))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(native, "REASON", "CUDA kernels are elsewhere")
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for value in facts.values():
        for line in value if isinstance(value, list) else [value]:
            if "free" not in line:  # free memory changes
                assert line in text


def healthy() -> dict[str, str]:
    return {"auto": "53 ms for 256 x 256 to x4", "eager": "60 ms for 256 x 256 to x4"}


CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_the_first_line_is_the_summary(examined, capsys, monkeypatch):
    facts = examined[0]
    assert next(iter(facts)) == "health"
    monkeypatch.setattr(diagnosis, "examine", lambda **_: dict(facts))
    assert main(["doctor"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert re.match(r"All well: |\d+ problems?: ", first) and first == facts["health"]
    assert json.loads(json.dumps(facts))["health"] == first


def test_backends_for_other_machines_are_not_problems(monkeypatch, tmp_path):
    monkeypatch.setattr(diagnosis, "NVIDIA", tmp_path / "none")
    lacks = {"cuda": "needs a CUDA device", "onnx": "needs onnx: pip install 'espan[export]'"}
    health = diagnosis._health(healthy() | lacks, CPU)
    assert health == "All well: cpu, 53 ms for 256 x 256 to x4"


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"auto": "the weights are damaged"}, 1),
        ({"openvino": "failed: libfoo.so.1: no such file"}, 1),
        ({"auto": "failed: a", "eager": "failed: b", "compile": "failed: c"}, 3),
    ],
)
def test_a_backend_that_should_run_and_does_not_is_a_problem(changes, count, monkeypatch, tmp_path):
    monkeypatch.setattr(diagnosis, "NVIDIA", tmp_path / "none")
    health = diagnosis._health(healthy() | changes, CPU)
    assert health.startswith(f"{count} problem{'s' * (count > 1)}: ")
    assert all(f"backend {name}: {reason}" in health for name, reason in changes.items())


def test_a_gpu_that_torch_does_not_find_is_a_problem(monkeypatch, tmp_path):
    driver = tmp_path / "version"
    driver.touch()
    monkeypatch.setattr(diagnosis, "NVIDIA", driver)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    health = diagnosis._health(healthy(), CPU)
    assert health.startswith("1 problem: an NVIDIA driver is loaded, but GPU: none: ")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert diagnosis._health(healthy(), CPU).startswith("All well")


def test_a_gpu_without_its_kernels_is_a_problem(monkeypatch):
    monkeypatch.setattr(native, "REASON", "CUDA kernels are not built (no nvcc)")
    health = diagnosis._health(healthy(), GPU)
    assert (
        health == "1 problem: GPU without its fastest kernels: CUDA kernels are not built (no nvcc)"
    )
    monkeypatch.setattr(native, "REASON", None)
    assert diagnosis._health(healthy(), GPU).startswith("All well: cuda, ")
