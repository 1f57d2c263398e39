"""How the kernels divide an image into items and share them out (csrc/common/cut.cuh)."""

from math import ceil, inf

# The rows of an image that one worker (a thread block or warpgroup) processes: the number of rows
# of each of its pieces.
Share = list[int]


def segments(strips: int, height: int, reach: int, workers: int) -> int:
    """The number of segments of the height; same as count_segments in csrc/common/cut.cuh."""
    best, least = 1, inf
    for count in range(1, height + 1):
        if (count - 1) * strips >= 2 * workers:
            break
        rows = ceil(strips * count / workers) * (ceil(height / count) + 2 * reach)
        if rows < least:
            best, least = count, rows
    return best


def shares(strips: int, height: int, reach: int, workers: int) -> list[Share]:
    """The items of every worker that has any: worker i processes items i, i + workers, ..."""
    segment = ceil(height / segments(strips, height, reach, workers))
    items = strips * ceil(height / segment)
    tops = [item // strips * segment for item in range(items)]
    rows = [min(segment, height - top) for top in tops]
    return [rows[first::workers] for first in range(min(items, workers))]


def even_shares(strips: int, height: int, reach: int, workers: int) -> list[Share]:
    """The rows of all strips, one strip after the other, shared out so that the longest share is as
    short as possible. A share that continues in the next strip has two pieces. No kernel does this.
    """
    most = 1 + 2 * reach
    while len(found := _filled(strips, height, reach, most)) > workers:
        most += 1
    return found


def _filled(strips: int, height: int, reach: int, most: int) -> list[Share]:
    """Shares of at most `most` rows, including the 2 * reach rows added to each piece."""
    found: list[Share] = [[]]
    left = most
    for _ in range(strips):
        rows = height
        while rows:
            if left <= 2 * reach:
                found.append([])
                left = most
            piece = min(rows, left - 2 * reach)
            found[-1].append(piece)
            rows -= piece
            left -= piece + 2 * reach
    return found
