"""What the web page takes on, so that no client can take more of the machine than was meant."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the server; each is a field of its own, so that a test can make it small."""

    upload: int = 64 * 2**20  # bytes of a picture file
    pixels: int = 100_000_000  # of a result
    queue: int = 8  # pictures arriving, waiting and under way, together
    workers: int = 1  # pictures computed at a time
    seconds: float = 300  # for one picture, from the moment it is under way
    upload_seconds: float = 60  # for a picture file to arrive
    grace: float = 10  # seconds without anyone listening after which a picture is given up
    keep_seconds: float = 900  # a result is kept
    keep_bytes: int = 512 * 2**20  # of results, the newest first; any is kept for `grace`
    connections: int = 100
    per_address: int = 32  # connections of one address
    arriving: int = 4  # picture files of one address that are arriving
    header_seconds: float = 10  # for a request's header, counted from the end of the one before
    slow_seconds: float = 5  # after which a file must have arrived at `rate` on the whole
    rate: int = 32 * 2**10  # bytes a second
