"""The bench on a GPU, with fakes: the peers' CUDA graphs, and the profiled frame."""

import contextlib
import gc
import weakref
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch

from bench import hot, network, peers, timing
from bench.record import Record
from bench.timing import Timing
from espan.backends.kernels import Plan
from tests.support.makers import random_net

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def contest(monkeypatch):
    """Runs fake peers against each other as on a GPU; returns {op: impls}, absences, captures."""
    captures = []

    def captured(work, device):
        captures.append(work)
        work()  # as a real capture does
        return work

    def interleaved(contenders, device, seconds, replay=False):
        assert not replay  # only timings in graphs replay one
        return {
            name: Timing.of([1e-3 if call() is not None else 9])
            for name, call in contenders.items()
        }

    monkeypatch.setattr(timing, "captured", captured)
    monkeypatch.setattr(network, "interleaved", interleaved)
    net = random_net()

    def against(available: dict):
        monkeypatch.setattr(peers, "CUDA", available)
        on_cpu = {
            name: lambda n, p, d, make=make: make(n, p, CPU) for name, make in available.items()
        }
        monkeypatch.setattr(network, "contenders_on", lambda device: on_cpu)
        monkeypatch.setattr(network, "_end_to_end_in_a_graph", whole_on_cpu)
        record = Record({}, {})
        network.against_peers(record, "ESPAN", net, GPU, (9, 7), 1, lambda impl: True, 0.1)
        found: dict = {}
        for row in record.rows:
            found.setdefault(row.op.removeprefix("ESPAN, "), []).append(row.impl)
        return found, record.absent, captures

    real = network._end_to_end_in_a_graph

    def whole_on_cpu(built, shown, device):
        return real(built, shown, CPU)

    return against


def test_peers_are_timed_as_called_and_in_graphs(contest):
    found, absent, captures = contest({"espan": peers.ours("fp32"), "eager": peers.eager("fp32")})
    both = ["espan", "eager"]
    assert found == {
        "network alone": both,
        "uint8 to uint8": both,
        "network alone, CUDA graph": both,
        "uint8 to uint8, CUDA graph": both,
    }
    # Each network alone, and eager's work on the device; an upscaler has its own graphs.
    assert len(captures) == 3 and not absent


def test_peers_with_own_graphs_are_not_captured(contest, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda run, mode: run)
    found, absent, captures = contest({"own": peers.eager("fp32", "max-autotune")})
    assert not captures and not absent
    assert all(impls == ["own"] for impls in found.values()) and len(found) == 4


def test_failing_or_wrong_graph_is_not_timed(contest, monkeypatch):
    def built(alone, pixels=None):
        def make(net, arrays, device):
            real = peers.eager("fp32")(net, arrays, device)
            changes = {"alone": lambda: alone(real.alone)}
            if pixels:
                changes["pixels"] = pixels
            return peers.Built(**{**vars(real), **changes})

        return make

    calls = []

    def wrong_later(run):
        calls.append(0)
        return run() + (len(calls) > 1)

    def fails(x):
        raise RuntimeError("waits for the host")

    found, absent, _ = contest(
        {"wrong": built(wrong_later), "waits": built(lambda run: run(), fails)}
    )
    assert found["network alone"] == ["wrong", "waits"]
    assert found["network alone, CUDA graph"] == ["waits"]
    assert "wrong: off by 1" in absent["network ESPAN, network alone, CUDA graph: wrong"]
    assert found["uint8 to uint8, CUDA graph"] == ["wrong"]
    assert absent["network ESPAN, uint8 to uint8, CUDA graph: waits"] == "waits for the host"


def test_end_to_end_in_a_graph_gives_the_same_image(monkeypatch):
    monkeypatch.setattr(timing, "captured", lambda work, device: work)
    shown = network.images(9, 7)
    built = peers.eager("fp32")(random_net(), shown, CPU)
    run_it = network._end_to_end_in_a_graph(built, shown, CPU)
    assert np.array_equal(run_it(), built.end_to_end()) and run_it().shape == (28, 36, 3)
    wrong = {**vars(built), "pixels": lambda x: 255 - built.pixels(x)}
    with pytest.raises(peers.AbsentError, match="from the image without a graph"):
        network._end_to_end_in_a_graph(peers.Built(**wrong), shown, CPU)


@pytest.mark.gpu
def test_captured_function_replays_on_current_data():
    x = torch.ones(5, device="cuda")
    replay = timing.captured(lambda: x * 2, x.device)
    x.fill_(3)
    assert replay().eq(6).all()
    with pytest.raises(RuntimeError):
        timing.captured(lambda: x.sum().item(), x.device)
    assert (x + 1).eq(4).all()  # the device still works


def test_profiler_sees_only_one_frame():
    seen = []
    profiler = SimpleNamespace(start=lambda: seen.append("start"), stop=lambda: seen.append("stop"))
    hot.once(lambda: seen.append("frame"), profiler)
    assert seen == ["frame", "start", "frame", "stop"]


def test_profiler_command_waits_for_the_frame():
    names = [
        "void espan::rows::rows_kernel<32, 3, (espan::Layout)0, false>(espan::rows::Work)",
        "void espan::(anonymous namespace)::tail_kernel<4, 2>(espan::(anonymous namespace)::Work)",
        "conv_kernel_0d1d",
    ]
    command = hot.ncu_command("ncu", names, GPU)
    assert command[command.index("--profile-from-start") + 1] == "off"
    chosen = command[command.index("--kernel-name") + 1]
    assert chosen == "regex:conv_kernel_0d1d|rows_kernel|tail_kernel"
    assert command[-4:] == [hot.__file__, "--once", "--device", "cuda"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_profiled_frame_needs_a_gpu(capsys):
    assert hot.main(["--once", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_profiled_frame_runs_the_checked_plan_on_uint8(monkeypatch):
    """The frame runs as in an upscaler, with its check."""
    seen = []
    monkeypatch.setattr(hot, "backend_of", lambda net, backend: Plan(net.float(), "eager"))
    monkeypatch.setattr(
        Plan, "checked", lambda plan, x, buffers: seen.append((x.dtype, tuple(x.shape)))
    )
    hot.work(CPU)()
    assert seen == [(torch.uint8, (1, 3, 270, 480))]


def test_a_captured_function_keeps_the_memory_it_uses(monkeypatch):
    """A graph has addresses only: freed memory would be used by others, or not exist."""

    class Graph:
        def replay(self):
            pass

    none = contextlib.nullcontext()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: mock.Mock())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: none)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: none)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    buffer = torch.zeros(3)
    alive = weakref.ref(buffer)
    replay = timing.captured(lambda x=buffer: x + 1, torch.device("cuda"))
    del buffer
    gc.collect()
    assert alive() is not None and replay().tolist() == [1, 1, 1]
