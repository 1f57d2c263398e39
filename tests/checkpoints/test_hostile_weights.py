"""Malicious weights files: none runs code, exhausts memory or time, or has hidden content."""

import json
import resource
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from espan import ESPAN, SPAN, WeightsError, load
from espan.checkpoints import untrusted, weights
from espan.checkpoints.weights import BUILTIN, SHA256, save
from tests.checkpoints.test_bad_weights import refused
from tests.support.makers import random_net
from tests.support.original_span import OriginalSPAN


def test_built_in_files_are_those_of_this_version(tmp_path, monkeypatch):
    for name, file in BUILTIN.items():
        assert load(name).scale == int(name.removesuffix("-web")[-1]) and file in SHA256
    folder = tmp_path / "builtin"
    folder.mkdir()
    save(random_net(), folder / "espan_x4.safetensors")  # valid weights, but not the built-in ones
    monkeypatch.setattr(weights.resources, "files", lambda package: tmp_path)
    with pytest.raises(WeightsError, match=r"espan_x4\.safetensors: not the file of this version"):
        load("espan-x4")


def with_header(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def test_a_header_too_long_is_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "safe_open", None)  # the parser must not see it
    path = with_header(tmp_path / "a.safetensors", b"{" + b" " * untrusted.MAX_HEADER + b"}")
    refused(path, "expected at most 1,048,576 bytes of header, found 1,048,578")
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    refused(path, "bytes of header, found 9,223,372,036,854,775,808")


def test_too_many_tensors(tmp_path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"t{i}": entry for i in range(5000)}, separators=(",", ":"))
    path = with_header(tmp_path / "a.safetensors", header.encode())
    refused(path, "expected at most 4,096 tensors, found 5,000")
    torch.save({f"t{i}": torch.zeros(0) for i in range(4097)}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "expected at most 4,096 tensors, found 4,097")


def test_a_file_too_large(tmp_path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse
    refused(path, "expected at most 268,435,456 bytes")


def our_file(path: Path, description: str, state=None) -> Path:
    save_file(state or {"a": torch.zeros(2)}, path, metadata={"espan": description})
    return path


def described(arch="ESPAN", **config) -> str:
    return json.dumps({"arch": arch, "config": config})


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "metadata cannot be parsed"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "metadata cannot be parsed"),
        (described("SPAN", img_range=float("nan")), "metadata cannot be parsed"),
        (described("SPAN", img_range=1.0).replace("1.0", "1e999"), "metadata cannot be parsed"),
        (described("SPAN", mean=[float("inf")] * 3), "metadata cannot be parsed"),
        (described("os.system"), "metadata cannot be parsed"),
        (json.dumps({"arch": ["ESPAN"], "config": {}}), "metadata cannot be parsed"),
        (json.dumps({"arch": "ESPAN", "config": "channels"}), "metadata cannot be parsed"),
        (described(channels=10**9), "channels: expected at most 1024, got 1000000000"),
        (described(channels=10**400), "channels: expected at most 1024, got 1000000"),
        (described(blocks=10**7), "blocks: expected at most 64, got 10000000"),
        (described(rep="k" * 10**5), "rep: expected at most 200 characters"),
        (described(rep=["k"] * 10**5), "rep: expected at most 200 characters"),
        (described(rep=7), "rep: expected at most 200 characters or null"),
        (described(channels=8.0), "does not fit"),
        (described(channels=True), "does not fit"),
        (described(scale=4.0), "does not fit"),
        (described(last_convs="2"), "does not fit"),
        (described("SPAN", img_range="255"), "does not fit"),
        (described("SPAN", mean=["a", "b", "c"]), "does not fit"),
        (described("SPAN", mean=[0] * 10**5), "does not fit"),
        (described("SPANF", last_convs=2), "does not fit"),
    ],
    ids=lambda text: text[:60],
)
def test_hostile_metadata(tmp_path, description, message):
    began = time.process_time()  # CPU time, independent of other load
    refused(our_file(tmp_path / "a.safetensors", description), message)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("net", "claims"),
    [
        (random_net(channels=8), described("ESPAN", channels=16, blocks=1, last_convs=0)),
        (random_net(channels=8), described("ESPAN", channels=8, blocks=2, last_convs=0)),
        (random_net(channels=8), described("SPAN", channels=8, blocks=1)),
        (random_net(scale=2), described("ESPAN", channels=8, blocks=1, last_convs=0, scale=3)),
    ],
    ids=["channels", "blocks", "arch", "scale"],
)
def test_metadata_that_disagrees_with_the_tensors(tmp_path, net, claims):
    path = our_file(tmp_path / "a.safetensors", claims, dict(net.state_dict()))
    refused(path, "does not fit (ESPAN|SPAN): ")


def zipped(path: Path, change, compression=zipfile.ZIP_STORED) -> Path:
    """A checkpoint whose archive entries are modified by change(name, bytes) -> bytes."""
    torch.save(OriginalSPAN(8, 2).state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))
    return path


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_zip_bomb(tmp_path):
    """300 MB of zeros in 300 KB: refused by its directory, never unpacked."""
    bomb = bytes(300 * 2**20)
    path = zipped(
        tmp_path / "a.pth",
        lambda name, content: bomb if name.endswith("/data/0") else content,
        zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < 2**20
    before = peak()
    refused(path, "refused: compressed entries, which torch.save never writes: ")
    assert peak() - before < 50 * 2**20


def test_entries_that_overlap(tmp_path):
    """Many entries share the same bytes: a bomb without compression."""
    path = zipped(tmp_path / "a.pth", lambda name, content: content)
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    one = content[directory : content.index(b"PK\x01\x02", directory + 4)]
    first = struct.pack("<HH", 900, 900) + struct.pack("<I", 900 * len(one))
    tail = bytearray(content[end:])
    tail[8:16] = first
    path.write_bytes(content[:directory] + 900 * one + bytes(tail))
    refused(path, "bytes in its archive, found")


def test_a_storage_that_claims_more_than_its_entry(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"conv_cat.weight": torch.ones(100)}, path)

    def claim(name, content):
        return content.replace(b"Kd", b"J\x00\x00\x00\x10") if "data.pkl" in name else content

    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    assert entries["a/data.pkl"].count(b"Kd") == 2  # in the storage, and in the tensor's shape
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, claim(name, content))
    refused(path, "not a readable PyTorch file|larger than their data")


def test_pickles_without_an_archive_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(OriginalSPAN(8, 2).state_dict(), path, _use_new_zipfile_serialization=False)
    refused(path, "not an archive of torch.save from version 1.6")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, 3).to_sparse(), "expected plain dense tensors"),
        (torch.zeros(3, 3, device="meta"), "floating point numbers, conv_1.sk.weight is .* meta"),
        (torch.zeros(3, 3, dtype=torch.complex64), "floating point numbers"),
        (torch.zeros(3, 3, dtype=torch.int64), "floating point numbers"),
        (torch.full((3, 3), 1e300, dtype=torch.float64), "not finite"),
        (torch.full((3, 3), float("nan")), "not finite: conv_1.sk.weight"),
    ],
    ids=["sparse", "meta", "complex", "integers", "beyond float32", "nan"],
)
def test_tensors_of_other_kinds(tmp_path, tensor, message):
    state = OriginalSPAN(8, 2).state_dict() | {"conv_1.sk.weight": tensor}
    torch.save(state, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", message)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[Path, bytes]:
    folder = tmp_path_factory.mktemp("good")
    save(random_net(channels=4), folder / "a.safetensors")
    torch.save(OriginalSPAN(4, 1).state_dict(), folder / "a.pth")
    return {path: path.read_bytes() for path in sorted(folder.iterdir())}


EDITS = st.lists(
    st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=9), st.sampled_from("set cut")),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, derandomize=True, deadline=2000, database=None)
@given(edits=EDITS, which=st.integers(0, 1), head=st.booleans())
def test_any_edit_of_a_file_ends_in_a_network_or_a_weights_error(good, edits, which, head):
    """Files that still load give networks with finite weights."""
    path = [*good][which]
    content = bytearray(good[path])
    for share, new, kind in edits:
        at = int(share * (1500 if head else len(content)))
        if kind == "cut" and not head:
            del content[at : at + len(new)]
        else:
            content[at : at + len(new)] = new
    path.write_bytes(content)
    try:
        net = load(path)
    except WeightsError as error:
        assert str(error).startswith(str(path))
        return
    assert isinstance(net, ESPAN | SPAN)
    assert all(np.isfinite(value.numpy()).all() for value in net.state_dict().values())
