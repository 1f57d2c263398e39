"""bench/wgmma.py on the host build: its checks, its timings, and its exit without a GPU."""

import json
import sys

import pytest
import torch

from bench import network, schema, wgmma
from bench.record import Record
from espan.networks.espan import ESPAN
from espan_kernels import machine
from tests.support.makers import random_net

CPU = torch.device("cpu")


@pytest.fixture
def small(host_build, monkeypatch):
    """Small networks and images on the host build."""
    monkeypatch.setattr(machine, "INTERPRETED", False)
    monkeypatch.setattr(wgmma, "NETWORKS", ("small",))
    monkeypatch.setattr(wgmma, "SAMPLES", {n: cases[1:3] for n, cases in wgmma.SAMPLES.items()})
    monkeypatch.setattr(wgmma, "PROVEN", ((1, 1), (5, 63)))
    monkeypatch.setattr(wgmma, "RERUNS", 1)
    monkeypatch.setattr(wgmma, "SIZES", ((9, 5),))
    monkeypatch.setattr(wgmma, "SECONDS", 0.0)
    net = random_net(channels=32, blocks=2, last_convs=0)
    assert isinstance(net, ESPAN)
    monkeypatch.setattr(network, "build", lambda name: net)


def test_proves_every_kernel_and_network_shim(small, capsys):
    wgmma.prove(CPU)
    said = capsys.readouterr().out
    for name in (*wgmma.SAMPLES, "small 63x5"):
        assert f"{name}" in said
    assert "trusted True" in said


def test_finds_wrong_kernels_shim(small, monkeypatch):
    def off(op, args, run):
        y = run(*args)
        return y + 1 if y.is_floating_point() else 255 - y

    error = wgmma._error
    monkeypatch.setattr(wgmma, "_error", lambda op, args, run: error(op, args, _with(off, op, run)))
    with pytest.raises(AssertionError, match=r"conv3x3: off by .*, eager by "):
        wgmma.prove(CPU)


def _with(change, op, run):
    return lambda *args: change(op, args, run)


def test_times_both_kinds_of_kernels_shim(small, tmp_path):
    times = tmp_path / "times.json"
    wgmma.time(CPU, times)
    record = Record.read(times)
    assert not record.absent
    content = json.loads(times.read_text())
    content["machine"]["commit"] = "41041214"  # the tests may run on uncommitted changes
    times.write_text(json.dumps(content))
    schema.check(times)
    timed = {(row.op, row.impl) for row in record.rows}
    labels = {
        "conv9x9_head, 32 channels, planes",
        "spab of 3, 32 channels, planes",
        "tail x4 of 3, planes",
        "plan of small, uint8 to uint8",
    }
    assert timed == {(label, impl) for label in labels for impl in wgmma.IMPLS}


def test_missing_gpu_is_reported(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert wgmma.main(tmp_path / "times.json") == 2
    assert "no GPU of compute capability 9.0" in capsys.readouterr().out


def test_failing_step_ends_the_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    commands = {"right": "pass", "hangs": "import time; time.sleep(60)", "after": "pass"}
    steps = [(name, [sys.executable, "-c", code], {}, 5) for name, code in commands.items()]
    monkeypatch.setattr(wgmma, "steps", lambda results: steps)
    assert wgmma.main(tmp_path / "times.json") == 1
    said = capsys.readouterr().out
    assert "hangs: exit code none after 5 s" in said and "after: at most" not in said


def test_all_steps_take_less_than_four_minutes(tmp_path):
    assert sum(limit for *_, limit in wgmma.steps(tmp_path)) < 240
