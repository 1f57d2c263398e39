"""Weights files whose metadata contradicts their weights, or with scalars instead of tensors."""

import json
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from espan import load
from tests.checkpoints.test_bad_weights import refused
from tests.checkpoints.test_hostile_weights import our_file
from tests.support.makers import random_net
from tests.support.original_span import OriginalSPAN


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("range", "0..255"),
        ("channels_order", "BGR"),
        ("scale", 1000),
        ("scale", 2),
        ("scale", None),
        ("folded", False),
        ("folded", 1),
    ],
)
def test_metadata_that_contradicts_the_network(tmp_path, name, value):
    net = random_net()
    told = {"arch": "ESPAN", "config": net.config}
    assert load(our_file(tmp_path / "a.safetensors", json.dumps(told), net.state_dict())).scale == 4
    path = our_file(tmp_path / "b.safetensors", json.dumps(told | {name: value}), net.state_dict())
    refused(path, f"metadata: {name}: expected .* for this network, got {value}")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_blocks_of_foreign_files_are_bounded(tmp_path, suffix):
    state = dict(OriginalSPAN(4, 1).state_dict())
    block = {key: value for key, value in state.items() if key.startswith("block_1.c1_r.conv.0")}
    for i in range(2, 1400):
        state |= {key.replace("block_1.", f"block_{i}."): t.clone() for key, t in block.items()}
    path = tmp_path / f"a{suffix}"
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    began = time.process_time()
    refused(path, "blocks: expected at most 64, got 1399")
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"conv_cat.weight": torch.tensor(1.0)},
            r"conv_cat.weight has shape \(\), expected",
        ),
        ({"epoch": 3}, "expected a dictionary of tensors, epoch is a int"),
        (
            {"loss": np.float64(0.5)},
            r"contains numpy\._?core\.multiarray\.\w+; only plain",
        ),
    ],
    ids=["no dimension", "int", "numpy"],
)
def test_scalars_are_called_scalars(tmp_path, more, says):
    torch.save(OriginalSPAN(8, 2).state_dict() | more, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", says)
