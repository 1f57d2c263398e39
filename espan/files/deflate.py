"""Compression made for pictures: by all cores, band by band, and without looking for repeats."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

# Bytes that one core compresses while others do the next.
BAND = 1 << 18


def compress(data, wbits: int = 15, flush: int = zlib.Z_FINISH) -> bytes:
    """As `zlib.compress`, of runs and single values only.

    What a filter has left of a photograph repeats itself by chance: the search for repeats takes
    most of zlib's time, and at its fast levels what it finds costs more than it saves
    (docs/decisions.md).
    """
    deflate = zlib.compressobj(1, zlib.DEFLATED, wbits, 9, zlib.Z_RLE)
    return deflate.compress(data) + deflate.flush(flush)


def spread(work: Callable[[Any], Any], items: Sequence) -> Iterator:
    """`map(work, items)` by as many threads as PyTorch's operators take in the calling one."""
    threads = min(len(items), torch.get_num_threads())
    if threads < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, items)
