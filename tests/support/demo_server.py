"""The web page of `espan demo` on a free local port, and a client for it."""

import http.client
import json
import threading
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

from espan import Upscaler
from espan.demo.app import make_app
from espan.demo.jobs import WebJobs
from espan.demo.limits import Limits
from espan.demo.server import Server, listen
from espan.demo.work import Work
from espan.sizes import NAMES
from tests.support.makers import random_net


@cache
def tiny(model: str) -> Upscaler:
    """A small network of the same scale for a built-in name; the file's network for a file."""
    scale = {"espan-x2": 2, "espan-x3": 3, "espan-x4": 4}.get(model)
    return Upscaler(
        random_net(scale=scale) if scale else model, device="cpu", dtype="fp32", tile=16
    )


class Slow:
    """A fake upscaler: stops half-way until `go` is set, then upscales by nearest neighbour."""

    scale, device, dtype = 4, "cpu", "float32"

    def __init__(self):
        self.go, self.begun = threading.Event(), 0

    def __call__(self, image, scale, progress):
        self.begun += 1
        while not self.go.wait(0.02):
            progress(1, 2)
        progress(2, 2)
        return image.resize([round(side * scale) for side in image.size], 0)


class Page:
    """A client of a running page. jobs: those of the server, if it runs in this process."""

    def __init__(self, port: int, jobs: WebJobs | None = None):
        self.port, self.jobs = port, jobs
        self.address = f"http://127.0.0.1:{port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(self, method: str, path: str, body=None, headers=None, **options):
        """(status, headers, body); a JSON body is parsed."""
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {}, **options)
            answer = connection.getresponse()
            content = answer.read()
            if answer.headers["content-type"] == "application/json":
                content = json.loads(content)
            return answer.status, answer.headers, content
        finally:
            connection.close()

    def send(self, content, **options):
        """Sends an image; returns (status, answer)."""
        query = {"name": "a.png", "model": "built-in"} | options
        if not {*NAMES} & {*options}:
            query = {"scale": 4} | query
        status, _, answer = self.request("POST", f"/jobs?{urlencode(query)}", content)
        return status, answer

    def events(self, id: str):
        """All events that the server sends about an image."""
        status, _, content = self.request("GET", f"/jobs/{id}/events")
        assert status == 200, content
        return [json.loads(line[6:]) for line in content.decode().split("\n\n") if line]

    def upscale(self, content, **options) -> dict:
        """Uploads an image and returns its last event, with its id."""
        status, answer = self.send(content, **options)
        assert status == 201, answer
        return self.events(answer["id"])[-1] | answer

    def files(self) -> list[Path]:
        return sorted(self.jobs.folder.iterdir())


@contextmanager
def page(folder: Path, upscaler=tiny, paths=(), **limits):
    limits = Limits(**limits)
    work = Work(upscaler, paths, limits)
    jobs = WebJobs(work, folder, limits)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = Server(make_app(jobs, work, limits), limits, jobs, "for a test")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Page(port, jobs)
    finally:
        server.handle_exit(None, None)
        thread.join(timeout=60)
        jobs.close()
        assert not thread.is_alive()


@contextmanager
def listening(page: Page, id: str):
    """The events about an image as they arrive; disconnects at the end."""
    connection = page.connect()
    connection.request("GET", f"/jobs/{id}/events")
    answer = connection.getresponse()
    assert answer.status == 200
    try:
        yield (json.loads(line[6:]) for line in answer if line.startswith(b"data: "))
    finally:
        connection.close()


def until(condition, seconds: float = 60) -> None:
    """Waits until `condition()`, at most `seconds`: long, because the machine may be busy."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out waiting for the condition"
        time.sleep(0.02)
