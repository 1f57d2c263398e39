"""Operators and bytes of the eager backends do not exceed the recorded costs."""

import json
from pathlib import Path

import pytest
import torch

from tests.support.cpu_costs import costs, counted

RECORD = Path(__file__).with_name("cpu_costs.json")


@pytest.fixture(scope="module")
def found():
    return costs()


def test_costs_are_those_on_record(found):
    want = json.loads(RECORD.read_text())
    assert found.keys() == want.keys()
    for name, cost in want.items():
        assert found[name] == cost, (
            f"{name}; if wanted: python -m tests.support.cpu_costs > {RECORD.name}"
        )


def test_the_form_for_cpus_moves_fewer_bytes_than_the_network(found):
    for name in ("ESPAN", "SPAN of 28 channels", "SPAN-F"):
        ours, theirs = found[f"{name}, on a CPU"], found[f"{name}, network"]
        assert ours["bytes per pixel"] < theirs["bytes per pixel"]
        assert "cat" not in ours and "pixel_shuffle" not in ours


def test_a_pass_too_many_is_counted():
    x = torch.rand(4, 8)
    once, twice = counted(lambda: x + 1), counted(lambda: (x + 1).t().mul(2))
    assert once["add"] == twice["add"] == twice["mul"] == 1 and "t" not in twice
    assert twice["bytes per pixel"] >= once["bytes per pixel"]
