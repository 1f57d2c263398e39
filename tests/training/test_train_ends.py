"""A run ends together with its workers, also after errors and signals."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest
from torch.utils.data import _utils as loading

from espan import EspanError
from espan.training import loop
from espan.training.config import TrainConfig
from espan.training.data import Patches, closing
from espan.training.image_pairs import ImagePairs
from espan.training.loop import train
from espan.training.synthetic import make_images
from tests.support.makers import TINY_RUN, as_yaml

# Seconds that PyTorch waits for a worker before it kills it, usually five. The interpreter's end
# takes one; SOON, below it, leaves time for other tests on the same cores.
WAITS, SOON = 120.0, 60.0


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    settings = TINY_RUN | {"steps": 40, "every": 40, "workers": 3}
    return TrainConfig(data="synthetic", out=str(tmp_path / "run"), **settings)


@pytest.mark.parametrize("workers", [0, 12])
def test_the_process_ends_soon_after_its_weights_are_written(tmp_path, workers):
    settings = TINY_RUN | {"data": "synthetic", "out": str(tmp_path / "run"), "every": 6}
    settings |= {"batch": 16, "workers": workers, "stages": [{}, {"dct": 0.5, "rep": "espan"}]}
    path = as_yaml(tmp_path / "run.yaml", **settings)
    code = f"""
from torch.utils.data import _utils
from espan.cli import main
_utils.MP_STATUS_CHECK_INTERVAL = {WAITS}
assert main(["train", {path!r}]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=500)
    ended = time.time()
    assert ended - (tmp_path / "run/final.safetensors").stat().st_mtime < SOON


def not_a_number(sr, hr, _config):
    return {"l1": (sr - hr).mean() * float("nan")}


def broken(*_):
    raise RuntimeError("CUDA error")


def signalled(sr, hr, config):
    os.kill(os.getpid(), signal.SIGTERM)
    return loss_of(sr, hr, config)


loss_of = loop.loss_of


@pytest.mark.parametrize(
    ("loss", "error"),
    [(not_a_number, EspanError), (broken, RuntimeError), (signalled, KeyboardInterrupt)],
)
def test_every_way_out_ends_the_workers(config, monkeypatch, loss, error):
    monkeypatch.setattr(loop, "loss_of", loss)
    with pytest.raises(error):
        train(config)
    assert not multiprocessing.active_children()


def test_workers_of_a_finished_run_have_ended(config):
    train(replace(config, steps=3, stages=[{}, {"scale": 2}]))
    assert not multiprocessing.active_children()


def test_workers_that_are_stuck_do_not_keep_a_run(config, monkeypatch):
    """Like on a disk that stopped responding."""
    get = Patches.__getitem__

    def stuck(patches, at):
        if multiprocessing.parent_process() and at >= config.batch:
            time.sleep(600)
        return get(patches, at)

    monkeypatch.setattr(Patches, "__getitem__", stuck)
    monkeypatch.setattr(loop, "loss_of", not_a_number)
    monkeypatch.setattr(loading, "MP_STATUS_CHECK_INTERVAL", 0.5)
    try:
        with pytest.raises(EspanError, match="the loss is nan"):
            train(config)
        assert not multiprocessing.active_children()
    finally:
        for worker in multiprocessing.active_children():
            worker.kill()


def test_workers_let_signals_to_the_whole_group_pass(config, tmp_path):
    make_images(tmp_path / "data")
    patches = Patches(ImagePairs(tmp_path / "data", 4), config)
    with closing(patches.loader(0, 30, 0, 1)) as batches:
        for _ in range(config.workers):  # one of each worker: all have started
            next(batches)
        workers = multiprocessing.active_children()
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGINT)
        assert len(list(batches)) == 30 - config.workers
    assert len(workers) == config.workers and not multiprocessing.active_children()


# A run that reports when it enters a function of the loop, and blocks there; it also reports each
# signal that it has handled.
STAYING = """
import sys, time
from espan.cli import main
from espan.training import loop
from espan.training.stopping import StopSignals

def stays(*arguments):
    print("there", flush=True)
    for _ in range(6000):  # a signal just before a sleep does not end that one
        time.sleep(0.1)

def telling(*arguments, note=StopSignals._note):
    note(*arguments)
    print("noted", flush=True)

setattr(loop, sys.argv[1], stays)
StopSignals._note = telling
sys.exit(main(["train", sys.argv[2]]))
"""


@pytest.fixture
def staying(config, tmp_path):
    """staying(name): a process of a run that blocks in function `name`, once it is there."""
    started = []

    def start(name: str) -> subprocess.Popen:
        path = as_yaml(tmp_path / "run.yaml", **asdict(replace(config, workers=0)))
        command = [sys.executable, "-c", STAYING, name, path]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[0].stdout.readline() == "there\n"
        return started[0]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["make_images", "initialise"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (2, 130)])
def test_a_signal_before_the_first_step_ends_the_process_at_once(staying, name, number, code):
    process = staying(name)
    process.send_signal(number)
    assert process.wait(timeout=120) == code


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_second_signal_during_a_step_ends_the_process_at_once(staying, first, second):
    process = staying("loss_of")
    process.send_signal(first)
    assert process.stdout.readline() == "noted\n" and process.poll() is None
    process.send_signal(second)
    assert process.wait(timeout=120) == -second


def test_what_signals_did_before_comes_back(config, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(loop, "loss_of", signalled)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_in_a_thread_leaves_signals_alone(config):
    with ThreadPoolExecutor() as pool:
        assert pool.submit(train, replace(config, steps=1, workers=0)).result().is_file()
