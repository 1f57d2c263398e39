"""Training estimates its memory before its first step, and refuses to start if it does not fit."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from espan import LimitError
from espan.system import memory
from espan.training.budget import needed
from espan.training.config import TrainConfig
from espan.training.loop import train
from espan.training.synthetic import make_images
from tests.support.makers import TINY_RUN

# Estimated and measured memory of a run, after a small run that has loaded all libraries.
MEASURE = """
import json, sys
from dataclasses import replace
import torch
from espan.training.budget import needed
from espan.training.config import TrainConfig
from espan.training.loop import train

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

torch.set_num_threads(1)
settings, folder = json.loads(sys.argv[1]), sys.argv[2]
config = TrainConfig(data=folder + "/data", out=folder + "/run", device="cpu", steps=2, **settings)
train(replace(config, out=folder + "/small", batch=1, patch=8, channels=8))
open("/proc/self/clear_refs", "w").write("5")  # the peak is what it takes now
before = memory("VmRSS")
train(config)
print(json.dumps([needed(config), memory("VmHWM") - before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
@pytest.mark.parametrize(
    "settings",
    [
        {"batch": 16, "precision": "fp32"},
        {"batch": 16, "precision": "bf16"},
        {"batch": 16, "precision": "fp32", "dct": 1.0},
        {"batch": 1, "patch": 16, "precision": "fp32", "channels": 128, "rep": "espan"},
    ],
    ids=str,
)
def test_the_estimate_is_near_the_measured_peak(tmp_path, settings):
    make_images(tmp_path / "data")
    command = [sys.executable, "-c", MEASURE, json.dumps(settings), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    said, took = json.loads(result.stdout.splitlines()[-1])
    assert 0.75 * took < said < 1.35 * took, (said / 2**20, took / 2**20)


def test_what_will_not_fit_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    config = TrainConfig(data="nowhere", out=str(tmp_path / "run"), **TINY_RUN)
    monkeypatch.setattr(memory, "available", lambda: needed(config) - 1)
    with pytest.raises(LimitError, match=r"stage 'main' would take about .* GiB .* smaller batch"):
        train(config)
    assert [*(tmp_path / "run").iterdir()] == []


def test_more_of_everything_takes_more():
    config = TrainConfig(data="data", out="out")
    more = {"batch": 32, "patch": 96, "channels": 64, "blocks": 9, "student": 3, "dct": 1.0}
    more |= {"highpass": 1.0, "teacher": ["a"], "rep": "espan", "precision": "fp32", "workers": 9}
    for name, value in more.items():
        assert needed(replace(config, **{name: value})) > needed(config), name
    assert needed(replace(config, batch=32), processes=2) == needed(config)
