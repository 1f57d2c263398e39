"""Eight threads on one upscaler, 250 rounds: bit-identical to the results of one thread."""

import time

import numpy as np

from tests.support.slots import FakeSlot
from tests.verification import rounds


def test_250_rounds_of_eight_threads():
    assert rounds.rounds(250, 8) == {"rounds": 250, "pictures": 2000, "mismatches": 0}


class SharedSlot:
    """A queue that gives the same slot to every thread."""

    def __init__(self, queue):
        self.held = queue.get()

    def get(self, block):
        return self.held

    def put(self, held):
        """Does nothing: the slot is never taken out of the queue."""


def test_a_slot_that_threads_share_is_noticed(monkeypatch):
    """Otherwise the test above would prove nothing."""
    up = rounds.upscalers()["two stream slots"]
    for executor in up._runner._executors.values():
        executor._free = SharedSlot(executor._free)
    # Wait for results, as on a GPU, so that other threads use the slot meanwhile.
    monkeypatch.setattr(FakeSlot, "mark", lambda slot: lambda: time.sleep(1e-3))
    monkeypatch.setattr(rounds, "upscalers", lambda: {"a shared stream slot": up})
    # Images of one size use the same buffers, so most rounds go wrong.
    monkeypatch.setattr(rounds, "SIZES", [(12, 12)] * 4)
    monkeypatch.setattr(rounds, "KINDS", [np.uint8])
    try:
        assert rounds.rounds(20, 8)["mismatches"] > 0
    except RuntimeError as error:  # another thread's image has other channels
        assert "size" in str(error)
