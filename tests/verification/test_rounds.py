"""Eight threads on one upscaler, 250 rounds: the bits that one thread alone gets."""

import time

from tests.support.lanes import FakeLane
from tests.verification import rounds


def test_250_rounds_of_eight_threads():
    assert rounds.rounds(250, 8) == {"rounds": 250, "pictures": 2000, "mismatches": 0}


class Everybodys:
    """A queue whose one lane is taken by all at once."""

    def __init__(self, queue):
        self.held = queue.get()

    def get(self, block):
        return self.held

    def put(self, held):
        """Nobody waits for it."""


def test_a_lane_that_threads_share_is_noticed(monkeypatch):
    """Otherwise the test above would prove nothing."""
    up = rounds.upscalers()["two lanes"]
    for engine in up._runner._engines.values():
        engine._free = Everybodys(engine._free)
    # Results are waited for, as on a GPU: others come to the lane in the meantime.
    monkeypatch.setattr(FakeLane, "mark", lambda lane: lambda: time.sleep(1e-3))
    monkeypatch.setattr(rounds, "upscalers", lambda: {"a shared lane": up})
    assert any(rounds.rounds(20, 8, seed)["mismatches"] for seed in range(10))
