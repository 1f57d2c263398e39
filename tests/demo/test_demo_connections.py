"""Incomplete headers, slow uploads and many connections do not lock other clients out."""

import http.client
import socket
import sys
import time
from contextlib import suppress

import pytest

pytest.importorskip("starlette", reason="the page needs Starlette: pip install 'espan[demo]'")
pytest.importorskip("uvicorn", reason="the page needs uvicorn: pip install 'espan[demo]'")

from tests.support import demo_server
from tests.support.demo_server import Slow, until
from tests.verification.half_headers import half_headers

UPLOAD = b"POST /jobs?name=a.png&model=built-in&scale=4 HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def serve(tmp_path):
    slow = Slow()
    yield lambda **limits: demo_server.page(tmp_path, lambda _: slow, **limits)
    slow.go.set()


def send(page, content: bytes, source: str = "127.0.0.1") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", page.port), 20, (source, 0))
    client.sendall(content)
    return client


def closed(client: socket.socket) -> bool:
    """Whether the server closes the connection without an answer."""
    try:
        return client.recv(100) == b""
    except ConnectionError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.2 and further addresses")
@pytest.mark.parametrize("addresses", [1, 4, 150])
def test_half_headers_lock_nobody_out(addresses):
    found = half_headers(150, addresses)
    assert found == {"half_headers": 150, "asked": 20, "shut_out": 0}


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nA: "])
def test_a_connection_without_a_header_is_closed(serve, start):
    with serve(header_seconds=0.3) as page:
        assert closed(send(page, start))


def test_single_bytes_do_not_restart_the_time_of_a_header(serve):
    with serve(header_seconds=0.5) as page:
        client, began = send(page, b"GET / HTTP/1.1\r\nA: "), time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < began + 60:
                client.sendall(b"x")
                time.sleep(0.05)


def test_a_second_header_on_a_connection_has_a_limit_too(serve):
    with serve(header_seconds=0.5) as page:
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
        connection.request("GET", "/settings")
        connection.getresponse().read()
        connection.sock.sendall(b"GET / HT")
        assert closed(connection.sock)


def test_an_address_over_its_limit_gets_an_error(serve):
    with serve(per_address=2, upload_seconds=30, slow_seconds=30) as page:
        started = [send(page, UPLOAD + b"Content-Length: 9\r\n\r\nx") for _ in range(2)]
        until(lambda: len(page.files()) == 2)
        status, _, answer = page.request("GET", "/settings")
        assert status == 503 and "too many connections" in answer["error"]
        for client in started:
            client.close()
        until(lambda: page.request("GET", "/settings")[0] == 200)


@pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.2")
def test_uploads_of_one_address_do_not_fill_the_queue(serve):
    with serve(arriving=2, queue=3, slow_seconds=30) as page:
        started = [send(page, UPLOAD + b"Content-Length: 9\r\n\r\nx", "127.0.0.2") for _ in "ab"]
        until(lambda: len(page.files()) == 2)
        third = send(page, UPLOAD + b"Content-Length: 9\r\n\r\nx", "127.0.0.2")
        assert b"503" in third.recv(1000)
        assert page.send(b"x")[0] == 201
        for client in [*started, third]:
            client.close()


def test_a_slow_file_is_dropped(serve):
    """A byte every 0.05 s is below the minimum rate, long before the time limit."""
    with serve(slow_seconds=0.5, rate=1000, upload_seconds=600) as page:
        client = send(page, UPLOAD + b"Content-Length: 100000\r\n\r\n")
        until(lambda: page.files())
        client.settimeout(0.05)
        answer, began = b"", time.monotonic()
        while not answer and time.monotonic() < began + 60:
            client.sendall(b"x")
            with suppress(TimeoutError):
                answer = client.recv(1000)
        assert b"408" in answer
        until(lambda: not page.files() and not page.jobs._jobs)
