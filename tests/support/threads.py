"""Work in several threads at once, whose errors are the test's."""

import threading
from collections.abc import Callable

import numpy as np


def in_threads(work: Callable[[int], None], count: int) -> None:
    """work(i) in `count` threads at once; the first error of theirs is raised."""
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
    """A thread for each picture gets, `runs` times, what one alone gets."""
    alone = [upscaler(picture) for picture in pictures]

    def work(i: int) -> None:
        for _ in range(runs):
            np.testing.assert_array_equal(upscaler(pictures[i]), alone[i], f"thread {i}")

    in_threads(work, len(pictures))
