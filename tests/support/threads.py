"""Runs work in several threads and re-raises their errors."""

import threading
from collections.abc import Callable

import numpy as np


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Runs work(i) in `count` parallel threads; raises their first error."""
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


def same_bits_in_threads(upscaler, images: list[np.ndarray], runs: int) -> None:
    """One thread per image gets the same bits, `runs` times, as sequential calls."""
    alone = [upscaler(image) for image in images]

    def work(i: int) -> None:
        for _ in range(runs):
            np.testing.assert_array_equal(upscaler(images[i]), alone[i], f"thread {i}")

    in_threads(work, len(images))
