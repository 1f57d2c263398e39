"""Damaged and unsafe weights files raise a WeightsError that names the file."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from espan import SPAN, WeightsError, load
from espan.checkpoints.weights import BUILTIN, save
from tests.support.makers import random_net
from tests.support.original_span import OriginalSPAN


def refused(path, match: str) -> str:
    with pytest.raises(WeightsError, match=match) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


class Hostile:
    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in-params"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_pickle_is_not_run(tmp_path, zipped, wrapped):
    hostile = Hostile(tmp_path / "ran")
    content = {"params": hostile} if wrapped else hostile
    path = tmp_path / "net.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    refused(path, "would run code")
    assert not (tmp_path / "ran").exists()


def test_plain_pickle_is_not_run(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    refused(path, "would run code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ""])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello, these are no weights\n" * 9, id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(99), id="picture"),
        pytest.param(bytes(64), id="zeros"),
        pytest.param(b"\xff" * 7 + b"\x7f{" + bytes(9), id="header-of-8-exabytes"),
    ],
)
def test_other_content(tmp_path, suffix, content):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    refused(path, ".")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated(tmp_path, net, kind, share):
    path = tmp_path / ("net.safetensors" if kind == "safetensors" else "net.pth")
    if kind == "safetensors":
        save(net, path)
    else:
        torch.save(
            OriginalSPAN(8, 2).state_dict(), path, _use_new_zipfile_serialization=kind[0] == "z"
        )
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "not a readable|damaged")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_bytes_end_in_no_other_error(tmp_path, net, kind):
    path = tmp_path / ("net.safetensors" if kind == "safetensors" else "net.pth")
    if kind == "safetensors":
        save(net, path)
    else:
        torch.save(
            OriginalSPAN(4, 2).state_dict(), path, _use_new_zipfile_serialization=kind[0] == "z"
        )
    content = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    errors = 0
    for _ in range(60):
        damaged = content.copy()
        where = random.integers(min(len(content), 3000), size=4)
        damaged[where] = random.integers(256, size=4)
        path.write_bytes(damaged.tobytes())
        try:
            load(path)
        except WeightsError:
            errors += 1
    assert errors > 10


@pytest.mark.parametrize("seed", range(5))
def test_flipped_numbers_are_found_by_the_archives_checksums(tmp_path, seed):
    """Also in files of other projects, for which torch.load would return wrong weights."""
    path = tmp_path / "net.pth"
    torch.save(OriginalSPAN(8, 2).state_dict(), path)
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    random = np.random.default_rng(seed)
    content[random.integers(len(content) // 4, len(content) * 3 // 4) :][:64] ^= 1
    path.write_bytes(content.tobytes())
    refused(path, "damaged: the CRC-32 of .* does not match")


def test_two_entries_of_one_name(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(OriginalSPAN(8, 2).state_dict(), path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("net/data/0", archive.read("net/data/0"))
    refused(path, "two entries of its archive have the same name")


def test_folder(tmp_path):
    refused(tmp_path, "no such weights file|folder|directory")


def test_missing_built_in_file_is_a_weights_error(monkeypatch):
    monkeypatch.setitem(BUILTIN, "espan-x9", "espan_x9.safetensors")
    with pytest.raises(WeightsError, match=r"espan[-_]x9"):
        load("espan-x9")


def test_unknown_network_says_what_was_looked_for_and_the_nearest(tmp_path):
    state = OriginalSPAN(8, 2).state_dict()
    del state["conv_cat.weight"]
    torch.save(state, tmp_path / "net.pth")
    message = refused(tmp_path / "net.pth", "not a known network")
    for name in ("ESPAN", "SPAN (training checkpoint)", "SPAN (folded)", "SPAN-F"):
        assert name in message
    assert "Nearest: SPAN (training checkpoint), without conv_cat.weight" in message
    assert "conv_1.sk.weight" in message


@pytest.mark.shared
def test_relative_that_is_not_supported_is_named(shared):
    refused(shared / "weights/spanv2_x4_ntire2026.pth", "not a known network.*Nearest: ")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([torch.zeros(3)], id="list"),
        pytest.param({"params": 3}, id="number-in-wrapper"),
        pytest.param({"epoch": 3, "lr": 0.1}, id="numbers"),
        pytest.param({}, id="empty-dict"),
        pytest.param(torch.zeros(3), id="tensor"),
    ],
)
def test_other_objects(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "expected a dictionary of tensors|not a known network")


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_are_not_finite(tmp_path, suffix, value):
    path = tmp_path / f"net{suffix}"
    net = OriginalSPAN(8, 2) if suffix == ".pth" else random_net()
    with torch.no_grad():
        net.conv_cat.weight[1, 2] = value
    torch.save(net.state_dict(), path) if suffix == ".pth" else save(net, path)
    refused(path, "not finite: conv_cat.weight")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("block_2.c1_r.conv.1.weight", (8, 8, 3, 3)),
        ("block_2.c1_r.conv.1.weight", (16, 16, 5, 5)),
        ("conv_cat.weight", (9, 32, 1, 1)),
        ("conv_cat.weight", ()),
        ("upsampler.0.weight", (13, 8, 3, 3)),
        ("upsampler.0.weight", (0, 8, 3, 3)),
        ("conv_cat.bias", (7,)),
    ],
    ids=str,
)
def test_wrong_shapes(tmp_path, key, shape):
    state = OriginalSPAN(8, 2).state_dict() | {key: torch.zeros(shape)}
    torch.save(state, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "does not fit|looks like SPAN")


def test_shape_that_claims_more_than_any_memory(tmp_path):
    # Stride 0: a file of a few bytes with a tensor of 40 billion elements.
    huge = torch.zeros(1).expand(10**6, 4 * 10**4, 1, 1)
    torch.save(OriginalSPAN(8, 2).state_dict() | {"conv_cat.weight": huge}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "tensors larger than their data in the file: conv_cat.weight")


@pytest.mark.parametrize("key", ["conv_2.bias", "surplus"])
def test_missing_and_surplus_tensors_are_named(tmp_path, key):
    net, path = random_net(SPAN, blocks=2), tmp_path / "net.safetensors"
    state = net.state_dict() | {"surplus": torch.zeros(1)}
    if key != "surplus":
        del state["surplus"], state[key]
    description = json.dumps({"arch": "SPAN", "config": net.config})
    save_file(state, path, metadata={"espan": description})
    refused(path, f"does not fit SPAN.*{key}")


@pytest.mark.parametrize(
    "description",
    [
        "not json",
        "[]",
        "{}",
        json.dumps({"arch": "VGG", "config": {}}),
        json.dumps({"arch": "ESPAN"}),
        json.dumps({"arch": "ESPAN", "config": {"colour": 1}}),
        json.dumps({"arch": "ESPAN", "config": {"scale": 7}}),
        json.dumps({"arch": "ESPAN", "config": {"scale": "4"}}),
        json.dumps({"arch": "ESPAN", "config": {"channels": -1}}),
        json.dumps({"arch": "ESPAN", "config": {"channels": 10**9}}),
        json.dumps({"arch": "ESPAN", "config": {"channels": 8, "rep": "none"}}),
        json.dumps({"arch": "SPAN", "config": {"channels": 8, "mean": [1]}}),
    ],
)
def test_metadata_that_is_not_understood(tmp_path, description):
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"espan": description})
    refused(path, "metadata cannot be parsed|does not fit|channels: expected at most")


def test_names_of_one_storage_count_each(tmp_path):
    one = torch.zeros(2**18)
    torch.save({f"t{i}": one for i in range(300)}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "expected at most 268,435,456 bytes of tensors")


def test_float4_is_not_known(tmp_path):
    entry = {"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}
    header, path = json.dumps(entry).encode(), tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"12")
    refused(path, "floating point numbers, a is torch.float4|unknown variant|no attribute")
