"""Every fault injected into a run on a CPU gives a correct result or a clear error."""

from tests.verification.faults import faults


def test_no_fault_gives_a_wrong_result():
    found = faults(tiles=2)
    assert found["faults"] > 50 and found["which"] == []
