"""The bench: invalid input, records, checks before timing, the report."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from bench import network, ops, report, run, train_step
from bench.machine import ROOT
from bench.record import FORMAT, Record, absences, compared, table
from bench.timing import Timing, interleaved
from espan_kernels import OPS

CPU = torch.device("cpu")


def record(*times: float) -> Record:
    made = Record({"device": "a", "kind": "cpu"}, {"fp32": 1e9, "copy": 1e9})
    for i, seconds in enumerate(times):
        made.add("spab", f"impl {i}", "4x4", "fp32", Timing.of([seconds]), 1e6, 1e6)
    return made


def old_file(tmp_path, content) -> str:
    path = tmp_path / "old.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["conv5x5"],
        ["spab", "--shapes", "12"],
        ["spab", "--shapes", "12x0"],
        ["spab", "--device", "tpu"],
        ["spab", "--device", "meta"],
        ["spab", "--compare", "not-there.json"],
        ["spab", "--json", f"{__file__}/there.json"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, capsys, monkeypatch):
    monkeypatch.setattr(run.machine, "limits", lambda device: {})
    assert run.main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("bench: ") and said.err.count("\n") == 1 and not said.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("option", [["--device", "cuda"], ["--report", "somewhere"]], ids=" ".join)
def test_missing_gpu(option, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run.main(option) == 2
    assert "not available" in capsys.readouterr().err and not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not a results file"),
        ([], f"format: expected 1 or {FORMAT}, got None"),
        ({"format": 0, "rows": []}, f"format: expected 1 or {FORMAT}, got 0"),
        ({"format": FORMAT, "rows": []}, "not a complete results file"),
        ({"format": FORMAT, "rows": [{"op": "a"}]}, "not a complete results file"),
        ({"format": FORMAT, "machine": [], "limits": {}, "rows": [], "absent": {}}, "with values"),
    ],
)
def test_old_and_damaged_results_are_refused(content, says, tmp_path, capsys):
    assert run.main(["spab", "--compare", old_file(tmp_path, content)]) == 2
    assert says in capsys.readouterr().err


def test_run_prints_and_saves_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "QUICK", 0.01)
    monkeypatch.setattr(run.machine, "limits", lambda device: {"fp32": 1e12, "copy": 1e10})
    kept = tmp_path / "kept.json"
    command = ["span_gate", "--quick", "--device", "cpu", "--shapes", "9x7"]
    assert run.main([*command, "--json", str(kept)]) == 0
    rows = Record.read(kept).rows
    assert [(row.op, row.impl, row.shape, row.dtype) for row in rows] == [
        ("span_gate", "eager", "9x7", "fp32"),
        ("span_gate", "eager", "9x7", "bf16"),
    ]
    assert all(row.ratio == 1 and row.q20 <= row.median <= row.q80 for row in rows)
    capsys.readouterr()
    assert run.main([*command, "--compare", str(kept)]) == 0
    said = capsys.readouterr().out
    assert "span_gate eager 9x7 bf16" in said and "not measured:" in said


def test_record_round_trip(tmp_path):
    saved = record(0.5, 0.25)
    saved.absent["ncnn"] = "No module named 'ncnn'"
    saved.save(tmp_path / "r.json")
    assert Record.read(tmp_path / "r.json") == saved


def test_rows_are_saved_immediately(tmp_path):
    made = Record({}, {}, kept=tmp_path / "r.json")
    made.add("spab", "eager", "4x4", "fp32", Timing.of([1.0]))
    assert len(Record.read(tmp_path / "r.json").rows) == 1


def test_shares_and_comparison():
    new, old = record(0.002, 0.004), record(0.004, 0.004)
    assert new.rows[0].share == 0.5
    lines = compared(new, old).splitlines()
    assert lines[1].split()[0] == "0.500" and lines[2].split()[0] == "1.000"
    assert "no row in common" in compared(new, record())
    assert "50 %" in table(new.rows)
    new.absent |= {"a": "no GPU", "b": "no GPU"}
    assert absences(new) == "  a, b: no GPU"


def test_contenders_are_interleaved_and_failures_isolated():
    order = []

    def fails():
        raise RuntimeError("out\nof luck")

    def slow(name):
        order.append(name)
        time.sleep(0.002)

    contenders = {"a": lambda: slow("a"), "bad": fails, "b": lambda: slow("b")}
    timings = interleaved(contenders, CPU, 0.02)
    assert timings["bad"] == "out of luck"
    assert timings["a"].rounds >= 3 and timings["a"].median >= 0.002
    timed = order[4:]  # each ran twice before
    assert {*timed[0::2], *timed[1::2]} == {"a", "b"} and timed[0] != timed[1]


def test_a_wrong_kernel_is_not_timed():
    op, notes = OPS["span_gate"], Record({}, {})
    args = op.make((1, 4, 5, 6), torch.float32)
    contenders = {
        "eager": lambda: op.reference(*args),
        "close": lambda: op.reference(*args) * (1 + 1e-7),
        "off": lambda: op.reference(*args) + 0.01,
        "shape": lambda: op.reference(*args)[:, :2],
        "nan": lambda: op.reference(*args) * float("nan"),
    }
    assert [*ops._correct(notes, op, args, contenders)] == ["eager", "close"]
    assert {*notes.absent} == {"span_gate off", "span_gate shape", "span_gate nan"}


def test_every_op_has_a_benchmark_and_its_count():
    public = {name for name in OPS if not name.endswith("backward")}
    assert {*ops.BENCHES} == public
    args = OPS["conv3x3"].make(ops.BENCHES["conv3x3"].case(6, 5, 1), torch.float32)
    assert ops.BENCHES["conv3x3"].flop(*args) == 2 * 9 * 32 * 32 * 30
    args = OPS["tail"].make(ops.BENCHES["tail"].case(6, 5, 1), torch.float32)
    assert ops.BENCHES["tail"].flop(*args) == 2 * 30 * (11 * 1024 + 13824)
    assert network.flop(network.build("ESPAN")) == 2 * 189_536


def test_report_survives_failing_parts(tmp_path, monkeypatch, capsys):
    python, sleeps = [sys.executable, "-c"], "import time; print('on', flush=True); time.sleep(60)"
    parts = [
        report.Part("good", [*python, "print('fine')"], 30, "a.log"),
        report.Part("bad", [*python, "raise SystemExit(3)"], 30, "b.log"),
        report.Part("slow", [*python, sleeps], 6, "a.log"),
        report.Part("missing", [str(tmp_path / "no-such-program")], 30, "c.log"),
        report.Part("left out", [], 30, "d.log", "there is no GPU"),
    ]
    monkeypatch.setattr(report, "parts", lambda folder, device: parts)
    began = time.monotonic()
    assert report.write(tmp_path / "out", CPU) == 1
    assert time.monotonic() - began < 55
    said = (tmp_path / "out/summary.md").read_text()
    for line in ("| good | ok ", "| bad | exit code 3", "| slow | ended after", "could not run"):
        assert line in said
    assert "| left out | there is no GPU" in said
    assert (tmp_path / "out/a.log").read_text().split() == ["fine", "on"]


def test_report_is_short_and_small(tmp_path):
    planned = report.parts(tmp_path, torch.device("cuda"))
    assert report.TOTAL <= 480
    assert (
        len({part.log for part in planned} | {"summary.md", "bench.json", "bench_quick.json"}) <= 8
    )
    long = tmp_path / "long.log"
    long.write_bytes(b"x" * 10**6)
    report._shorten(long)
    assert long.stat().st_size < 200_000
    for part in planned:  # what it starts is there
        script = part.command[2]
        assert script == "-m" or (ROOT / script).is_file()


def test_runs_as_a_script_from_anywhere(tmp_path):
    command = [sys.executable, str(ROOT / "bench/run.py"), "nothing"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("bench: op: expected")


def test_runs_without_pillow():
    """A machine with a GPU may have torch and a compiler, but few other packages."""
    code = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("PIL", "safetensors", "tqdm", "matplotlib"):
            raise ImportError(f"No module named {name!r}")

sys.meta_path.insert(0, Missing())
import torch
from bench import hot, network, peers, run
net, shown = network.build("ESPAN"), network.images(9, 7)
with torch.inference_mode():
    want = net(torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255).numpy()
built = peers.CPU["espan fp32"](net, shown, torch.device("cpu"))
network._check(built, built.alone(), want)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_cost_of_a_train_step_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(train_step, "WARM", 0)
    monkeypatch.setattr(train_step, "STEPS", 1)
    monkeypatch.setattr(train_step, "peak", lambda rep: 100.0 if rep else 50.0)
    monkeypatch.setattr(sys, "argv", ["train_step.py", "--rep", "span"])
    threads = torch.get_num_threads()
    try:
        assert train_step.main() == 0
    finally:
        torch.set_num_threads(threads)
    adam, muon, peak = capsys.readouterr().out.splitlines()
    assert adam.startswith("Adam: plain ") and muon.startswith("Muon: plain ")
    assert peak == "peak: plain 50 MiB, span 100 MiB, 2.00 x"
