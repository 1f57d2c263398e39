"""Every fault that can be put into a run on a CPU leaves a right result, or a clear error."""

from tests.verification.faults import faults


def test_no_fault_makes_a_wrong_result():
    found = faults(tiles=2)
    assert found["faults"] > 50 and found["which"] == []
