"""Time limits of the bench: compiling peers come last, and an early end keeps rows."""

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from bench import apart, ops, peers, run
from bench.budget import COMPILE_LIMIT, Budget, EndedEarlyError
from bench.machine import ROOT
from bench.record import Record
from bench.timing import Timing

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def adds(impl: str, seconds: float = 1.0):
    return lambda record: record.add("spab", impl, "4x4", "fp32", Timing.of([seconds]))


def test_compiling_peers_share_the_remaining_time():
    clock = Clock()
    budget = Budget(90, 0.0, clock)
    clock.now = 50
    assert budget.share(2) == 20
    clock.now = 55  # the first took less; the second gets the rest
    assert budget.share(1) == 35
    assert Budget(None, 0.0, clock).share(2) == COMPILE_LIMIT
    assert Budget(90, 0.0, clock).left() == 35


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
@pytest.mark.parametrize("extent", ["quick", "full"])
def test_compiling_peers_come_last(device, extent):
    arguments = SimpleNamespace(names=[], impl=None, shapes=None, apart=None, quick=False)
    arguments.full = extent == "full"
    names = [*run.parts(arguments, device, None, Budget(None, 0.0))]
    compiled = [name for name in names if peers.compiles(name)]
    assert compiled and names[-len(compiled) :] == compiled
    assert ("spab: compile default" in compiled) == arguments.full
    assert names.index("PNG file") < names.index(compiled[0])
    if device.type == "cuda":
        assert compiled[-2:] == [f"network: torch.compile {x}fp16" for x in ("", "max-autotune ")]
        assert {"network ESPAN 480x270", "network ESPAN 960x540"} <= {*names}
        assert ops.shapes("spab", device, None, False) == ops.FRAMES
    # The separate processes measure only peers that compile.
    arguments.apart, arguments.names, arguments.impl = 9, ["network"], ["torch.compile"]
    assert {name.split()[1] for name in run.parts(arguments, device, None, None)} == {"ESPAN"}


def test_failing_part_does_not_stop_others(capsys):
    def fails(record):
        adds("first")(record)
        raise RuntimeError("out\nof luck")

    record = Record({}, {})
    parts = {"bad": fails, "eager": adds("eager", 2.0)}
    assert run.measure(record, parts, Budget(None, 0.0)) is None
    assert [row.impl for row in record.rows] == ["first", "eager"]
    assert record.rows[0].ratio == 2 and record.absent == {"bad": "out of luck"}


@pytest.mark.parametrize(("error", "code"), [(("no time left",), None), (("stopped", 143), 143)])
def test_early_end_keeps_rows(error, code, tmp_path):
    def ends(record):
        adds("half")(record)
        raise EndedEarlyError(*error)

    record = Record({}, {}, kept=tmp_path / "r.json")
    parts = {"one": adds("full"), "two": ends, "three": adds("never")}
    assert run.measure(record, parts, Budget(None, 0.0)) == code
    assert record.absent == dict.fromkeys(("two", "three"), error[0])
    assert [row.impl for row in Record.read(tmp_path / "r.json").rows] == ["full", "half"]


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (None, None, "no time left"),
        (signal.SIGTERM, 143, "stopped"),
        (signal.SIGINT, 130, "stopped"),
    ],
    ids=["time", "SIGTERM", "SIGINT"],
)
def test_timeout_and_signals_interrupt_a_part(number, code, reason):
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("only the main thread receives signals")

    def sleeps(record):
        adds("half")(record)
        try:
            if number:
                os.kill(os.getpid(), number)
            time.sleep(60)
        except Exception:  # a peer that swallows exceptions
            time.sleep(60)

    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    record, began = Record({}, {}), time.monotonic()
    budget = Budget(None if number else 0.2, began)
    assert run.measure(record, {"one": sleeps, "two": adds("never")}, budget) == code
    assert time.monotonic() - began < 50
    assert [row.impl for row in record.rows] == ["half"]
    assert record.absent == {"one": reason, "two": reason}
    assert handlers == [
        signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    ]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


SLEEPS = """
import sys, time
from bench import run
run.parts = lambda *_: {"one": lambda record: time.sleep(600)}
sys.exit(run.main(["--quick", "--device", "cpu", "--apart", "2"]))
"""


def test_peer_process_ends_without_its_parent():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SLEEPS], env=environment, timeout=300)
    assert done.returncode == -signal.SIGALRM


OPENVINO = """
import os, signal, time
import torch
from bench import network, peers, run
from bench.budget import Budget
from bench.record import Record
from tests.support.makers import random_net
net, shown, held = random_net(), network.images(9, 7), {}
for name in ("openvino bf16", "openvino fp32"):
    held[name] = peers.CPU[name](net, shown, torch.device("cpu"))
    held[name].alone()
for name in [*held]:
    del held[name]
def ends(record):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
assert run.measure(Record({}, {}), {"one": ends}, Budget(None, 0.0)) == 143
"""


def test_signals_work_after_openvino():
    """Freeing two OpenVINO cores in order of creation removes the signal stack."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", OPENVINO], env=environment, timeout=300)
    assert done.returncode == 0


# A peer process: saves a row of eager and one of its own, and continues.
CHILD = """
import json, os, sys
assert int(sys.argv[sys.argv.index("--apart") + 1]) >= 8
row = dict(op="spab", shape="4x4", dtype="fp32", median=0.5, q20=0.5, q80=0.5, rounds=3, flop=1e6)
kept = dict(format=2, machine={}, limits={}, absent={"spab cuda": "not built"})
kept["rows"] = [row | {"impl": impl} for impl in ("eager", "compile default")]
def keep():
    with open(sys.argv[sys.argv.index("--json") + 1], "w") as file:
        json.dump(kept, file)
keep()
"""


@pytest.mark.parametrize(
    ("then", "absent"),
    [
        ("", {}),
        ("sys.exit(3)", {"label": "exit code 3"}),
        (
            "raise ValueError('a peer\\'s fault')",
            {"label": "exit code 1: ValueError: a peer's fault"},
        ),
        ("os.kill(os.getpid(), 11)", {"label": "SIGSEGV"}),
        (
            "kept['absent']['spab compile default'] = 'wrong'; keep(); sys.exit(1)",
            {"spab compile default": "wrong"},
        ),
    ],
    ids=["well", "code", "error", "crash", "absent"],
)
def test_rows_of_a_peer_process_are_kept(then, absent):
    record = Record({}, {"fp32": 1e7})
    command = [sys.executable, "-c", CHILD + then]
    apart.measure(record, "label", "compile default", command, 60)
    assert [(row.impl, row.share) for row in record.rows] == [("compile default", 0.2)]
    assert record.absent == absent


def test_peer_process_ends_in_time_with_its_children(tmp_path):
    child = "import subprocess, sys, time; subprocess.Popen(['sleep', '61.5']); time.sleep(60)"
    began = time.monotonic()
    assert apart.run([sys.executable, "-c", child], 1) == "ended after 1 s"
    assert time.monotonic() - began < 50
    record = Record({}, {})
    apart.measure(record, "label", "x", ["/no/such/program"], apart.LEAST - 1)
    assert record.absent == {"label": "no time left to compile in (7 s)"}


def test_peer_process_measures_one_peer(tmp_path):
    """Runs the real command with a fake compiler."""
    code = """
import sys
import torch
torch.compile = lambda f, **_: f
from bench import run
run.FULL = 0.01
sys.exit(run.main(sys.argv[1:]))
"""
    options = ["spab", "--impl", "compile default", "--device", "cpu", "--full"]
    kept = tmp_path / "r.json"
    command = [sys.executable, "-c", code, *options, "--shapes", "6x5"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command += ["--json", str(kept), "--apart", "60"]
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == 0
    assert {row.impl for row in Record.read(kept).rows} == {"eager", "compile default"}
