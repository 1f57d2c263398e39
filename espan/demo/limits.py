"""Limits of the web page's server, which bound the resources that clients can use."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the server, one field each, so that tests can lower them."""

    upload: int = 64 * 2**20  # bytes of an image file
    pixels: int = 100_000_000  # of a result
    queue: int = 8  # images arriving, waiting and in progress, in total
    workers: int = 1  # images computed at a time
    seconds: float = 300  # for one image, without its time in the queue
    upload_seconds: float = 60  # for an image file to arrive
    grace: float = 10  # seconds after which the image of a client that has left is cancelled
    keep_seconds: float = 900  # lifetime of a result
    keep_bytes: int = 512 * 2**20  # of results, oldest deleted first; each is kept for `grace`
    connections: int = 100
    per_address: int = 32  # connections of one address
    arriving: int = 4  # image files arriving from one address
    header_seconds: float = 10  # for a request's header, from the end of the previous request
    slow_seconds: float = 5  # grace period before the mean upload rate must reach `rate`
    rate: int = 32 * 2**10  # bytes per second
