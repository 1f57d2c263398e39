"""A run ends when its work has, and takes its workers along, whichever way it ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from torch.utils.data import _utils as loading

from espan import EspanError
from espan.training import loop
from espan.training.config import TrainConfig
from espan.training.data import Patches, closing
from espan.training.loop import train
from espan.training.pictures import Pictures
from espan.training.synthetic import make_pictures
from tests.support.makers import TINY_RUN, as_yaml

# Seconds that PyTorch waits for a worker before it ends it, usually five. The interpreter's own end
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
    """As on a disk that answers no more."""
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
    make_pictures(tmp_path / "data")
    patches = Patches(Pictures(tmp_path / "data", 4), config)
    with closing(patches.loader(0, 30, 0, 1)) as batches:
        for _ in range(config.workers):  # one from each: all have begun
            next(batches)
        workers = multiprocessing.active_children()
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGINT)
        assert len(list(batches)) == 30 - config.workers
    assert len(workers) == config.workers and not multiprocessing.active_children()
