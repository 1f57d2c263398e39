"""Rows of entire calls: complete, and per image."""

import torch

from bench import host, machine, record
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
