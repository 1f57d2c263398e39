"""Eight threads on one upscaler, 250 rounds: the bits that one thread alone gets."""

import time

from tests.support.slots import FakeSlot
from tests.verification import rounds


def test_250_rounds_of_eight_threads():
    assert rounds.rounds(250, 8) == {"rounds": 250, "pictures": 2000, "mismatches": 0}


class Everybodys:
    """A queue whose one slot is taken by all at once."""

    def __init__(self, queue):
        self.held = queue.get()

    def get(self, block):
        return self.held

    def put(self, held):
        """Nobody waits for it."""


def test_a_slot_that_threads_share_is_noticed(monkeypatch):
    """Otherwise the test above would prove nothing."""
    up = rounds.upscalers()["two stream slots"]
    for executor in up._runner._executors.values():
        executor._free = Everybodys(executor._free)
    # Results are waited for, as on a GPU: others come to the slot in the meantime.
    monkeypatch.setattr(FakeSlot, "mark", lambda slot: lambda: time.sleep(1e-3))
    monkeypatch.setattr(rounds, "upscalers", lambda: {"a shared stream slot": up})
    assert any(rounds.rounds(20, 8, seed)["mismatches"] for seed in range(10))
