"""Checkpoints, journals, videos and requests with changed bytes have documented outcomes."""

import logging

import pytest

pytest.importorskip("av", reason="PyAV is not installed")
pytest.importorskip("uvicorn", reason="the page needs uvicorn: pip install 'espan[demo]'")

from tests.verification.fuzz_bytes import TARGETS, fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_edits_have_documented_outcomes(name, caplog):
    caplog.set_level(logging.CRITICAL)
    assert fuzz(name, 40) == []
