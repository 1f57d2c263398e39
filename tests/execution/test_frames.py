"""Frames upscaled in order: how many in parallel, on how many cores, and progress."""

import threading

import pytest
import torch

from espan.execution import frames


@pytest.fixture
def cores():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("device", "there", "workers", "each"),
    [("cpu", 1, 1, 1), ("cpu", 3, 3, 1), ("cpu", 8, 4, 2), ("cuda", 1, 2, 1), ("cuda", 8, 2, 4)],
)
def test_frames_share_the_cores(cores, device, there, workers, each):
    cores(there)
    together = threading.Barrier(workers)

    def enlarge(number: int) -> tuple[int, str, int]:
        together.wait(60)  # blocks until the expected number of frames run in parallel
        return -number, threading.current_thread().name, torch.get_num_threads()

    whole = (number for number in range(3 * workers))
    made = list(frames.upscale_in_order(enlarge, whole, torch.device(device)))
    assert [(number, result[0]) for number, result in made] == [(i, -i) for i in range(3 * workers)]
    assert len({name for _, (_, name, _) in made}) == workers
    assert {count for _, (_, _, count) in made} == {each}
    assert torch.get_num_threads() == there


def test_frames_are_counted_as_they_come():
    seen = []
    for _ in frames.with_progress(iter("abc"), 4, lambda *counts: seen.append(counts), done=2):
        pass
    assert seen == [(3, 4), (4, 4), (5, 5)]
