"""The comparison of two checkouts covers all kinds of results and prints every difference."""

import sys

import pytest

from tests.verification import same_results


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(same_results, "SIZES", ((4, 5),))
    monkeypatch.setattr(same_results, "NETWORKS", ("SPANF",))
    monkeypatch.setattr(same_results, "RUNS", (("eager", "fp32"), ("auto", "bf16")))
    monkeypatch.setattr(same_results, "_plans", lambda: {})


def test_digests_are_reproducible_and_cover_every_pixel_type(few):
    found = same_results.digests()
    assert len(found) == len({*found.values()}) == 6
    assert same_results.digests() == found


@pytest.mark.parametrize(
    ("theirs", "code"), [({"a": "1", "b": "2"}, 0), ({"a": "1", "b": "3"}, 1), ({"a": "1"}, 1)]
)
def test_every_difference_is_printed(monkeypatch, capsys, tmp_path, theirs, code):
    of = {same_results.ROOT: {"a": "1", "b": "2"}, tmp_path: theirs}
    monkeypatch.setattr(same_results, "of", of.__getitem__)
    monkeypatch.setattr(sys, "argv", ["same_results", str(tmp_path)])
    assert same_results.main() == code
    assert ("differs: b: 2" in capsys.readouterr().out) == code
