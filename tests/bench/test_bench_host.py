"""Rows of entire calls: complete, and per image."""

import math

import pytest
import torch

from bench import animation, host, machine, record
from bench import video as clips
from espan import Upscaler
from tests.support.makers import random_net


def test_rows_of_entire_calls(monkeypatch):
    monkeypatch.setattr(clips, "FRAMES", 3)
    monkeypatch.setattr(host, "_without_amx", lambda *args: None)
    device = torch.device("cpu")
    found = record.Record(machine.facts(device), {})
    host.host_to_host(found, Upscaler, random_net(), device, (24, 16), 0.0)
    rows = {row.impl: row for row in found.rows}
    assert not found.absent and {row.op for row in found.rows} == {host.OP}
    assert [*rows] == [
        "the network alone",
        "numpy to numpy",
        "a list of 16 arrays, each",
        "a loop over 16 arrays, each",
        "PIL to PIL",
        "video, each frame",
        "its frames as a list, each",
    ]
    assert rows["video, each frame"].shape == "160x96"
    # Time per image, not per list.
    assert rows["a list of 16 arrays, each"].median < 8 * rows["numpy to numpy"].median


def test_failed_list_keeps_its_reason():
    assert host._over("out of memory", 16) == "out of memory"


def test_overhead_of_a_video(monkeypatch, tmp_path):
    monkeypatch.setattr(clips, "FRAMES", 2)
    monkeypatch.setattr(clips, "ROUNDS", 1)
    found = clips.measure(clips.make(tmp_path / "clip.mp4"), tmp_path, "cpu")
    assert len(found) == 3 and all(wall > 0 for wall, _ in found.values())


@pytest.mark.parametrize("suffix", animation.FORMATS)
def test_overhead_of_an_animation(monkeypatch, tmp_path, suffix):
    for name, value in {"SIZE": (40, 30), "FRAMES": 3, "ROUNDS": 1}.items():
        monkeypatch.setattr(animation, name, value)
    found = animation.measure(suffix, tmp_path, "cpu")
    assert found["times the network's"] > 0 and found["KB a frame"] > 0
    assert found["PSNR"] == math.inf if suffix == "png" else 25 < found["PSNR"] < 60
