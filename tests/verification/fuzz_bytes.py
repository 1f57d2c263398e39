"""Checkpoints, journals, videos and requests with bytes changed by hypothesis.

`python -m tests.verification.fuzz_bytes --examples 2000` prints one JSON document; exit code 1 if
there were findings: outcomes other than the documented ones.
"""

import argparse
import json
import logging
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espan.batch.journal import NAME, Journal, stamp_of
from espan.batch.planning import FileJob
from espan.errors import EspanError, InputError
from tests.support import clips, demo_server
from tests.support.demo_server import Slow
from tests.verification.checkpoints import equal, kept_in, state

# (place, kind of edit, bytes)
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from(["set", "insert", "cut"]),
        st.binary(min_size=1, max_size=64) | st.sampled_from([b"\xff" * 8, bytes(8), b"\r\n"]),
    ),
    min_size=1,
    max_size=4,
)
REQUEST = (
    b"POST /jobs?name=a.png&model=built-in&scale=4&format=png HTTP/1.1\r\nHost: localhost\r\n"
    b"Origin: http://localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
)


def edited(content: bytes, edits) -> bytes:
    out = bytearray(content)
    for share, kind, new in edits:
        place = int(share * len(out))
        until = place if kind == "insert" else place + len(new)
        out[place:until] = b"" if kind == "cut" else new
    return bytes(out)


def checkpoints(stack: ExitStack) -> tuple[bytes, Callable[[bytes], None]]:
    kept = kept_in(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    for step in (1, 2):
        kept.write(0, step, state(step, 500))
    path = kept.paths()[-1]

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(InputError):
            back = kept.newest()
            assert back and equal(back, state(back["step"], 500)), (
                "a damaged checkpoint was accepted"
            )

    return path.read_bytes(), attempt


def journals(stack: ExitStack) -> tuple[bytes, Callable[[bytes], None]]:
    root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    jobs = [FileJob(root / f"{i}.in", root / f"{i}.out", root) for i in range(3)]
    with Journal("settings") as journal:
        for job in jobs:
            job.input.touch()
            job.output.touch()
            journal.add(job, stamp_of(job.input))
    done = FileJob(root / "never.in", root / "never.out", root)
    done.input.touch()
    done.output.touch()

    def attempt(content: bytes) -> None:
        (root / NAME).write_bytes(content)
        with Journal("settings") as journal:
            assert not journal.has(done), "an image that was never finished counts as finished"
            assert all(isinstance(journal.has(job), bool) for job in jobs)

    return (root / NAME).read_bytes(), attempt


def videos(stack: ExitStack) -> tuple[bytes, Callable[[bytes], None]]:
    from espan.video.source import probe

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    clips.make(folder / "a.mp4")
    path = folder / "b.mp4"

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        try:
            probe(path)
        except EspanError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error), str(error)

    return (folder / "a.mp4").read_bytes(), attempt


def requests(stack: ExitStack) -> tuple[bytes, Callable[[bytes], None]]:
    """Every request gets an answer other than 500 or none, and the page keeps working."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    limits = {"header_seconds": 0.3, "slow_seconds": 0.3, "grace": 0.1}
    page = stack.enter_context(demo_server.page(folder, lambda _: Slow(), **limits))

    def attempt(content: bytes) -> None:
        answer = b""
        to = "127.0.0.1", page.port
        with suppress(ConnectionError), socket.create_connection(to) as client:
            client.settimeout(30)
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(4096)
        assert not answer.startswith(b"HTTP/1.1 500"), answer
        assert page.request("GET", "/settings")[0] == 200

    return REQUEST, attempt


TARGETS = {each.__name__: each for each in (checkpoints, journals, videos, requests)}


def fuzz(name: str, examples: int) -> list[str]:
    """The findings of a target: the first error, if there is one."""
    with ExitStack() as stack:
        whole, attempt = TARGETS[name](stack)

        @settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(EDITS)
        def run(edits) -> None:
            attempt(edited(whole, edits))

        try:
            run()
        except Exception as error:
            return [f"{name}: {error!r}"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=200)
    examples = parser.parse_args().examples
    logging.disable()
    found: dict = dict.fromkeys(TARGETS, examples)
    found["findings"] = [line for name in TARGETS for line in fuzz(name, examples)]
    print(json.dumps(found))
    return int(bool(found["findings"]))


if __name__ == "__main__":
    sys.exit(main())
