"""Compiled costs must match the record for the same compiler; other compilers only warn."""

import json
import warnings
from pathlib import Path

import pytest

from tests.support.costs import CostsWarning, by_kernel, check_costs, differences

RECORDS = [Path(__file__).with_name(name) for name in ("cuda_costs.json", "triton_costs.json")]
RECORDED = {
    "a sm_80 0": {
        "kernel": "a",
        "registers": 100,
        "shared": 1000,
        "spills": 0,
        "hgmma": [6],
        "instructions": [200, 240],
    }
}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_no_kernel_spills(path):
    recorded = by_kernel(json.loads(path.read_text()))
    assert len(recorded) > 100
    assert not {name: c for name, c in recorded.items() if c["spills"] or c.get("stack")}


def test_cost_files_are_read_by_kernel():
    cuda = {"nvcc": "13.0", "a.cu a": {"sm_80": {"spills": 0}, "sm_90a": {"spills": 1}}}
    assert by_kernel(cuda) == {"a.cu a sm_80 0": {"spills": 0}, "a.cu a sm_90a 0": {"spills": 1}}
    triton = {"triton": "3.7.1", "a": {"sm_80": [{"spills": 0}, {"spills": 1}]}}
    assert by_kernel(triton) == {"a sm_80 0": {"spills": 0}, "a sm_80 1": {"spills": 1}}


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        ({"registers": 108, "shared": 1100}, []),
        ({"registers": 90, "shared": 10}, []),
        ({"registers": 109}, ["a sm_80 0: registers 109, 100 recorded"]),
        ({"shared": 1101}, ["a sm_80 0: shared 1101, 1000 recorded"]),
        ({"spills": 8}, ["a sm_80 0: spills 8, 0 recorded"]),
        ({"hgmma": [5]}, ["a sm_80 0: hgmma [5], [6] recorded"]),
        ({"instructions": [200, 230]}, []),
        (
            {"instructions": [201, 230]},
            ["a sm_80 0: instructions [201, 230], [200, 240] recorded"],
        ),
        ({"instructions": [200]}, ["a sm_80 0: instructions [200], [200, 240] recorded"]),
        ({"kernel": "b"}, ["a sm_80 0: kernel b, a recorded"]),
    ],
    ids=str,
)
def test_differences(measured, says):
    (name,) = RECORDED
    assert differences({name: RECORDED[name] | measured}, RECORDED, registers=8) == says


def test_new_and_missing_kernels():
    new = {"b sm_80 0": {"spills": 0}}
    lines = ["a sm_80 0: not compiled", "b sm_80 0: not in the record"]
    assert differences(new, RECORDED, registers=8) == lines


def test_costs_of_the_recorded_compiler_must_match():
    with pytest.raises(AssertionError, match=r"triton 3\.7\.1.*\na: spills 880"):
        check_costs(["a: spills 880"], "triton", "3.7.1", "3.7.1")


def test_another_compiler_is_reported():
    with pytest.warns(CostsWarning, match=r"triton 3\.9\.0, recorded with 3\.7\.1:\na: spills 880"):
        check_costs(["a: spills 880"], "triton", "3.9.0", "3.7.1")


@pytest.mark.parametrize("version", ["3.7.1", "3.9.0"])
def test_matching_costs_are_silent(version):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_costs([], "triton", version, "3.7.1")
