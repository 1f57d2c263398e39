"""Deflate for images: strips compressed in parallel, without searching for repeats."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

# Bytes of a strip, which one thread compresses.
STRIP = 1 << 18
# Share of equal neighbours above which run-length encoding pays off.
RUNS = 0.7


def compress(data: np.ndarray, wbits: int = 15, flush: int = zlib.Z_FINISH) -> bytes:
    """Same as `zlib.compress`, but with Huffman coding only, or run-length encoding if it pays off.

    Filtered photographs have few repeats: searching for them takes most of zlib's time and, at its
    fast levels, hardly saves bytes (docs/decisions.md).
    """
    values = data.view(np.uint8).ravel()
    first = values[: len(values) // 8]
    equal = np.count_nonzero(first[1:] == first[:-1])
    strategy = zlib.Z_RLE if equal > RUNS * len(first) else zlib.Z_HUFFMAN_ONLY
    deflate = zlib.compressobj(1, zlib.DEFLATED, wbits, 9, strategy)
    return deflate.compress(values.data) + deflate.flush(flush)


def map_in_threads(work: Callable[[Any], Any], items: Sequence) -> Iterator:
    """Same as `map(work, items)`, with as many threads as PyTorch's operators use."""
    threads = min(len(items), torch.get_num_threads())
    if threads < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, items)
