"""Stream slots without a GPU, to test how executors use streams, staging memory and graphs."""

from contextlib import nullcontext
from functools import partial

import torch

from espan import Upscaler
from espan.execution.executors import StreamExecutor


class FakeSlot:
    """A fake `espan.execution.cuda_graph.StreamSlot` on the host. Captures raise `failure`."""

    device = torch.device("cpu")

    def __init__(self, failure: Exception | None = None):
        self.failure = failure
        self.log: list[str] = []

    def current(self):
        return nullcontext()

    def holds(self, pixels) -> bool:
        return False

    def follow(self) -> None:
        self.log.append("follow")

    def mark(self):
        self.log.append("mark")
        return lambda: self.log.append("wait")

    def pinned(self, like):
        return torch.full_like(like, 77)

    def writes(self, out) -> bool:
        return False

    def capture(self, work):
        self.log.append("capture")
        if self.failure:
            raise self.failure
        results = tuple(torch.full_like(one, 77) for one in work())

        def replay() -> None:
            self.log.append("replay")
            for old, new in zip(results, work(), strict=True):
                old.copy_(new)

        return replay, results


def with_slots(up: Upscaler, *slots: FakeSlot) -> list[FakeSlot]:
    """Makes a CPU upscaler use these stream slots, by default two, as on a GPU."""
    slots = [*slots] or [FakeSlot(), FakeSlot()]
    runner = up._runner

    def bind(dtype, pixels):
        return runner._bind(dtype, pixels)  # looked up late, since tests replace it

    runner._executors = {
        each: StreamExecutor(partial(bind, each), slots, runner._direct(each))
        for each in runner.backends
    }
    return slots
