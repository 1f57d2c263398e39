"""Compression made for pictures: by all cores, band by band, and without looking for repeats."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

# Bytes that one core compresses while others do the next.
BAND = 1 << 18
# Neighbours that are equal, of all, from which on runs are worth looking for.
RUNS = 0.7


def compress(data: np.ndarray, wbits: int = 15, flush: int = zlib.Z_FINISH) -> bytes:
    """As `zlib.compress`, of single values only, or of runs too where there are many.

    What a filter has left of a photograph repeats itself by chance: the search for repeats takes
    most of zlib's time, and at its fast levels it hardly saves bytes (docs/decisions.md).
    """
    values = data.view(np.uint8).ravel()
    first = values[: len(values) // 8]
    equal = np.count_nonzero(first[1:] == first[:-1])
    strategy = zlib.Z_RLE if equal > RUNS * len(first) else zlib.Z_HUFFMAN_ONLY
    deflate = zlib.compressobj(1, zlib.DEFLATED, wbits, 9, strategy)
    return deflate.compress(values.data) + deflate.flush(flush)


def spread(work: Callable[[Any], Any], items: Sequence) -> Iterator:
    """`map(work, items)` by as many threads as PyTorch's operators take in the calling one."""
    threads = min(len(items), torch.get_num_threads())
    if threads < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, items)
