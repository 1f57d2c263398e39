"""`python -m tests.verification.half_headers`: many incomplete headers must not lock others out."""

import argparse
import json
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.support import demo_server
from tests.support.demo_server import Slow

ASKED = 20


def half_headers(count: int, addresses: int = 1) -> dict:
    """Holds `count` connections with half a header from `addresses` local addresses open, then
    sends 20 requests.

    shut_out: requests that were not served.
    """
    found = {"half_headers": count, "asked": ASKED, "shut_out": 0}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        page = stack.enter_context(demo_server.page(Path(folder), lambda _: Slow()))
        for i in range(count):
            source = (f"127.0.1.{1 + i % addresses}", 0)
            client = socket.create_connection(("127.0.0.1", page.port), 20, source)
            stack.enter_context(client).sendall(b"GET / HTTP/1.1\r\nHost: loc")
        for _ in range(ASKED):
            try:
                found["shut_out"] += page.request("GET", "/settings")[0] != 200
            except OSError:
                found["shut_out"] += 1
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--addresses", type=int, default=200)
    chosen = parser.parse_args()
    found = half_headers(chosen.count, chosen.addresses)
    print(json.dumps(found))
    sys.exit(int(found["shut_out"] > 0))
