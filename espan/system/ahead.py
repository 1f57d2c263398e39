"""Pipelining with threads: decoding ahead of the network, and the network ahead of the encoder."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_END = object()

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(items: Generator[Item], depth: int = 2) -> Generator[Item]:
    """Yields the items, produced by a background thread with a queue of `depth`.

    Re-raises an error of `items` in its place. Closing stops the thread and closes `items`.
    """
    made: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Any, error: BaseException | None = None) -> bool:
        while not stopped.is_set():
            try:
                made.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:
            put(_END, error)
        finally:
            items.close()

    thread = threading.Thread(target=make, daemon=True, name="espan-ahead")
    thread.start()
    try:
        while (got := made.get())[0] is not _END:
            yield got[0]
        if got[1] is not None:
            raise got[1]
    finally:
        stopped.set()
        thread.join()


def in_order(
    work: Callable[[Item], Made],
    items: Generator[Item],
    workers: int,
    prepare: Callable[[], None] | None = None,
) -> Generator[tuple[Item, Made]]:
    """Yields (item, work(item)) in order, by `workers` threads that first call `prepare`."""
    with ThreadPoolExecutor(workers, initializer=prepare) as pool:
        under_way: deque = deque()
        try:
            for item in items:
                under_way.append((item, pool.submit(work, item)))
                if len(under_way) > workers + 1:  # one in the queue, so that no worker is idle
                    done, future = under_way.popleft()
                    yield done, future.result()
            while under_way:
                done, future = under_way.popleft()
                yield done, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
            items.close()
