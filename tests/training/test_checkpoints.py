"""Checkpoints: damaged and incomplete ones are skipped, kills lose none."""

import logging
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from espan import InputError
from espan.cli import main
from espan.training.checkpoints import Checkpoints
from espan.training.config import TrainConfig
from espan.training.loop import train
from tests.support.makers import TINY_RUN, as_yaml
from tests.verification.checkpoints import equal, flips, kills, state


@pytest.fixture
def kept(tmp_path) -> Checkpoints:
    """Two checkpoints, of steps 2 and 4."""
    config = TrainConfig(data="synthetic", out=str(tmp_path), **TINY_RUN)
    kept = Checkpoints(tmp_path, config)
    for step in (2, 4):
        kept.write(0, step, state(step, 2000))
    return kept


def changed(path: Path, **parts) -> None:
    """A checkpoint with replaced parts; None removes a part."""
    content = torch.load(path, weights_only=True) | parts
    torch.save({name: part for name, part in content.items() if part is not None}, path)


def test_64_flipped_bytes_are_found_and_the_one_before_it_is_taken(kept, caplog):
    path = kept.paths()[-1]
    content = bytearray(path.read_bytes())
    for place in range(4000, 4064):  # tensor data
        content[place] ^= 0xFF
    path.write_bytes(content)
    back = kept.newest()
    assert back["step"] == 2 and equal(back, state(2, 2000))
    (record,) = caplog.records
    assert str(path) in record.getMessage() and "CRC-32" in record.getMessage()


def test_no_flipped_byte_is_ever_believed(caplog):
    caplog.set_level(logging.CRITICAL)
    found = flips(150)
    assert found["believed"] == 0 and found["refused"] > 100


def test_no_kill_loses_a_checkpoint():
    found = kills(20)
    assert found["lost"] == found["leftovers"] == 0 and found["inside"] > 2


@pytest.mark.parametrize(
    "parts",
    [
        {"net": None},
        {"net": 3},
        {"average": None},
        {"optimizers": {}},
        {"config": None},
        {"step": "4"},
        {"step": 7},
        {"step": -1},
        {"stage": 1},
        {"net": None, "optimizers": None, "precision": None},
    ],
    ids=str,
)
def test_one_without_its_parts_is_one_line_and_the_one_before_it_is_taken(kept, caplog, parts):
    changed(kept.paths()[-1], **parts)
    assert kept.newest()["step"] == 2
    (record,) = caplog.records
    message = record.getMessage()
    assert str(kept.paths()[-1]) in message and "\n" not in message
    assert all(name in message for name in parts)


@pytest.mark.parametrize("content", [[], torch.zeros(3), "text", None], ids=repr)
def test_what_is_no_checkpoint_at_all(kept, content):
    torch.save(content, kept.paths()[-1])
    assert kept.newest()["step"] == 2


def test_all_without_their_parts_are_said_to_be_damaged(kept):
    for path in kept.paths():
        changed(path, net=None)
    with pytest.raises(InputError, match=r"checkpoint-00-00000004\.pt: damaged, like all others"):
        kept.newest()


@pytest.mark.parametrize("net", [{}, {"conv_1.weight": torch.zeros(3)}], ids=["empty", "other"])
def test_weights_that_do_not_fit_are_one_line(tmp_path, capsys, net):
    config = TrainConfig(data="synthetic", out=str(tmp_path / "run"), **TINY_RUN)
    train(config)
    changed(tmp_path / "run/checkpoint-00-00000006.pt", net=net)
    path = as_yaml(tmp_path / "run.yaml", **asdict(config))
    assert main(["train", path]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "checkpoint-00-00000006.pt: does not fit this run" in lines[0]


def test_leftovers_of_a_killed_run_are_cleared_away(tmp_path):
    (tmp_path / "run").mkdir()
    left = tmp_path / "run/.espan-00000000000000000000000000000000.part"
    left.write_bytes(b"half")
    train(replace(TrainConfig(data="synthetic", out=str(tmp_path / "run"), **TINY_RUN), steps=1))
    assert not left.exists()
