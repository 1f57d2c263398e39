"""Training in several processes gives the same losses as one process with the full batch."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import espan
from espan import InputError
from espan.training.config import TrainConfig
from espan.training.loop import train
from tests.support.makers import TINY_RUN, as_yaml

SETTINGS = TINY_RUN | {
    "data": "synthetic",
    "batch": 4,
    "blocks": 2,
    "last_convs": 1,
    "student": 1,
    "rep": "espan",
    "every": 1,
}
RUNS = ("alone", "two")
NOT_TERMS = {"stage", "steps_per_second", "images_per_second", "data_wait_ms"}


def with_teacher(folder) -> dict:
    """Settings of two stages: first the teacher runs in each step, then its outputs are kept."""
    torch.manual_seed(0)
    espan.save(espan.SPAN(8, 1), folder / "teacher.safetensors")
    live = {"name": "live", "teacher_affinity": 0.1, "steps": 3}
    kept = {"name": "kept", "teacher_outputs": str(folder / "outputs"), "steps": 3}
    return {"teacher": [str(folder / "teacher.safetensors")], "stages": [live, kept]}


@pytest.mark.parametrize("taught", [False, True])
def test_two_processes_train_as_one_with_the_whole_batch(tmp_path, taught):
    (tmp_path / "alone").mkdir()
    (tmp_path / "two").mkdir()
    settings = [SETTINGS | (with_teacher(tmp_path / out) if taught else {}) for out in RUNS]
    alone = train(TrainConfig(out=str(tmp_path / "alone"), **settings[0]))
    path = as_yaml(tmp_path / "run.yaml", **settings[1], out=str(tmp_path / "two"))
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*run, "-m", "espan.cli", "train", path],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in RUNS
    ]
    assert len(rows[0]) == len(rows[1]) == SETTINGS["steps"]
    for one, other in zip(*rows, strict=True):
        assert {"loss", "l1", "student_l1", "distill"} <= one.keys()
        assert taught == ("student_teacher_l1" in one)
        for term in one.keys() - NOT_TERMS:
            assert one[term] == pytest.approx(other[term], rel=1e-4), term
    ours, theirs = (espan.load(tmp_path / name / alone.name).state_dict() for name in RUNS)
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-4, msg=key)


def test_batches_that_do_not_divide_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    config = TrainConfig(out=str(tmp_path), **SETTINGS)
    with pytest.raises(InputError, match="batch: 4 is not a multiple of 3 processes"):
        train(config)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_precisions(tmp_path, precision):
    config = TrainConfig(out=str(tmp_path), **SETTINGS)
    path = train(replace(config, precision=precision, steps=3))
    assert all(each.isfinite().all() for each in espan.load(path).state_dict().values())
