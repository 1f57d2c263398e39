"""Runs work in concurrent threads and re-raises their errors."""

import threading
from collections.abc import Callable

import numpy as np


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Runs work(i) in `count` concurrent threads; raises their first error."""
    errors = []

    def safely(i):
        try:
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=safely, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def same_bits_in_threads(upscaler, pictures: list[np.ndarray], runs: int) -> None:
    """Concurrent threads, one per image, get the same results as a single thread, `runs` times."""
    alone = [upscaler(picture) for picture in pictures]

    def work(i: int) -> None:
        for _ in range(runs):
            np.testing.assert_array_equal(upscaler(pictures[i]), alone[i], f"thread {i}")

    in_threads(work, len(pictures))
