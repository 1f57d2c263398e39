"""Limits of the web page's server: size, time, queue, origin of requests."""

import io
import logging
import threading
import time

import pytest
from PIL import Image

from tests.support.makers import noise

pytest.importorskip("starlette", reason="the page needs Starlette: pip install 'espan[demo]'")
pytest.importorskip("uvicorn", reason="the page needs uvicorn: pip install 'espan[demo]'")

from espan import DeviceLostError
from espan.demo import server
from espan.demo.jobs import JobRequest, WebJobs
from espan.demo.limits import Limits
from espan.demo.work import Work
from espan.images import files
from tests.support import demo_server
from tests.support.demo_server import Page, Slow, listening, until
from tests.support.storm import FOLDER_MIB, GROWTH_MIB, storm


def encoded(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


IMAGE = encoded(noise(20, 30, 3))
UPLOAD = "/jobs?name=a.png&model=built-in&scale=4"


@pytest.fixture
def slow():
    slow = Slow()
    yield slow
    slow.go.set()


@pytest.fixture
def serve(tmp_path, slow):
    """serve(**limits): the page with `slow` instead of its networks."""
    return lambda **limits: demo_server.page(tmp_path, lambda _: slow, **limits)


def test_a_file_over_the_limit(serve):
    with serve(upload=1000) as page:
        status, answer = page.send(b"x" * 1001)
        assert status == 413 and "limit of 1,000 bytes" in answer["error"]
        assert page.send(b"x" * 1000)[0] == 201
        assert len(page.files()) <= 1


def test_a_stream_of_unknown_length_over_the_limit(serve):
    with serve(upload=100_000) as page:
        connection = page.connect()
        connection.putrequest("POST", UPLOAD)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        sent = 0
        try:
            while sent < 100 * 2**20:
                connection.send(chunk)
                sent += 0x4000
        except OSError:  # the server has hung up
            pass
        assert sent < 20 * 2**20  # the size of the system's buffers
        connection.close()
        until(lambda: not page.files() and not page.jobs._jobs)
        assert page.request("GET", "/")[0] == 200


def test_a_file_that_does_not_arrive_frees_its_place(serve):
    with serve(upload_seconds=2, queue=1) as page:
        connection = page.connect()
        connection.putrequest("POST", UPLOAD)
        connection.putheader("Content-Length", "1000")
        connection.endheaders()
        connection.send(b"x")
        until(lambda: page.files())
        assert page.send(IMAGE)[0] == 503
        answer = connection.getresponse()
        assert answer.status == 408 and b"too long to arrive" in answer.read()
        connection.close()
        assert page.files() == [] and page.send(IMAGE)[0] == 201


def test_a_client_that_disconnects_during_the_upload_frees_its_place(serve, caplog):
    with serve(queue=1) as page:
        connection = page.connect()
        connection.putrequest("POST", UPLOAD)
        connection.putheader("Content-Length", "1000")
        connection.endheaders()
        connection.send(b"x")
        until(lambda: page.files())
        connection.close()
        until(lambda: not page.files())
        assert page.send(IMAGE)[0] == 201
    assert not caplog.records


def test_a_full_queue_is_an_error(serve, slow):
    with serve(queue=2) as page:
        (_, first), (_, second) = page.send(IMAGE), page.send(IMAGE)
        status, headers, answer = page.request("POST", UPLOAD, IMAGE)
        assert status == 503 and "full" in answer["error"] and int(headers["retry-after"]) > 0
        slow.go.set()
        assert all(page.events(each["id"])[-1]["state"] == "done" for each in (first, second))
        assert page.upscale(IMAGE)["state"] == "done"


def test_one_image_is_computed_at_a_time(serve, slow):
    with serve() as page:
        ids = [page.send(IMAGE)[1]["id"] for _ in range(3)]
        until(lambda: slow.begun)
        time.sleep(0.3)
        assert slow.begun == 1
        slow.go.set()
        assert all(page.events(id)[-1]["state"] == "done" for id in ids)


def test_a_client_that_has_left_frees_its_place(serve, slow):
    with serve(grace=2) as page:
        gone, stays = (page.send(IMAGE)[1]["id"] for _ in range(2))
        with listening(page, stays) as events:
            with listening(page, gone) as own:
                assert next(own)["state"] in ("waiting", "working")
                until(lambda: slow.begun == 1)
                time.sleep(2.5)  # longer than `grace`, but its client is listening
                assert slow.begun == 1
            until(lambda: slow.begun == 2)  # the one that stays
            slow.go.set()
            assert list(events)[-1]["state"] == "done"
        assert page.request("GET", f"/jobs/{gone}/result")[0] == 404
        assert {path.name.split(".")[0] for path in page.files()} == {stays}


def test_cancelling_frees_the_place_immediately(serve, slow):
    with serve(queue=1) as page:
        _, answer = page.send(IMAGE)
        until(lambda: slow.begun)
        assert page.request("DELETE", f"/jobs/{answer['id']}")[0] == 204
        assert page.send(IMAGE)[0] == 201
        until(lambda: slow.begun == 2)


def test_an_image_that_takes_too_long_is_stopped(serve):
    with serve(seconds=0.3) as page:
        _, answer = page.send(IMAGE)
        until(lambda: page.jobs.get(answer["id"]).state == "failed")
        assert "more than 0.3 s" in page.events(answer["id"])[-1]["error"]
        assert page.files() == []


@pytest.mark.parametrize(("limit", "kept"), [("keep_bytes", 1), ("keep_seconds", 0)])
def test_results_are_deleted(serve, slow, tmp_path_factory, limit, kept):
    slow.go.set()
    large = Image.fromarray(noise(20, 30, 3).repeat(4, 0).repeat(4, 1))
    folder = tmp_path_factory.mktemp("large")
    size = files.write(folder / "a.png", large).stat().st_size + len(IMAGE)
    limits = {"keep_bytes": 3 * size // 2, "keep_seconds": 1.5}
    with serve(**{limit: limits[limit]}, grace=1.5) as page:
        ids = [page.upscale(IMAGE)["id"] for _ in range(4)]
        until(lambda: {path.name.split(".")[0] for path in page.files()} == {*ids[4 - kept :]})
        assert page.request("GET", f"/jobs/{ids[0]}/result")[0] == 404
        assert page.request("GET", f"/jobs/{ids[-1]}/result")[0] == (200 if kept else 404)


def test_a_preview_counts_and_a_file_that_cannot_be_deleted_stops_no_other(tmp_path):
    def work(job, progress):
        job.result.write_bytes(b"12345")
        job.preview.write_bytes(b"123")

    jobs = WebJobs(work, tmp_path, Limits())
    done, stuck = (jobs.open(JobRequest(name, "m", 4, ".png", ".png")) for name in "ab")
    stuck.source.mkdir()  # unlink cannot remove it
    for job in (stuck, done):
        jobs.submit(job)
        until(lambda job=job: job.state == "done")
    jobs.close()
    assert done.bytes == 8


def test_failures_are_forgotten(serve):
    with serve(grace=1.5) as page:
        for _ in range(80):
            page.upscale(b"")
        until(lambda: len(page.jobs._jobs) <= 64)


def test_an_unexpected_error_stays_on_the_server(tmp_path, caplog):
    class Broken(Slow):
        def __call__(self, image, scale, progress):
            raise RuntimeError("secret of /home/me")

    with demo_server.page(tmp_path, lambda _: Broken()) as page, caplog.at_level(logging.ERROR):
        last = page.upscale(IMAGE)
        assert last["state"] == "failed" and last["error"] == "internal error"
        assert "secret of /home/me" in caplog.text and "Traceback" in caplog.text
        page.jobs.get = None  # an error in a handler
        status, headers, answer = page.request("GET", "/jobs/x/result")
        assert status == 500 and answer == {"error": "internal error"}
        assert headers["x-content-type-options"] == "nosniff"
        until(lambda: "'NoneType' object is not callable" in caplog.text)


def test_a_failed_gpu_ends_the_server(tmp_path, monkeypatch):
    class Failing(Slow):
        def __call__(self, image, scale, progress):
            raise DeviceLostError("cuda:0: an illegal memory access")

    def request():
        until(lambda: jobs)
        answers.append(Page(port).upscale(IMAGE))

    jobs, answers = [], []
    monkeypatch.setattr(server, "WebJobs", lambda *of: jobs.append(WebJobs(*of)) or jobs[0])
    listener = server.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    client = threading.Thread(target=request)
    client.start()
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        server.serve(listener, Work(lambda _: Failing(), [], Limits()), Limits(), [])
    client.join()
    assert answers[0]["state"] == "failed" and "GPU has failed" in answers[0]["error"]
    assert not jobs[0].folder.exists()


def test_no_memory_is_a_message(tmp_path):
    class Hungry(Slow):
        def __call__(self, image, scale, progress):
            raise MemoryError

    with demo_server.page(tmp_path, lambda _: Hungry()) as page:
        assert "out of memory" in page.upscale(IMAGE)["error"]


@pytest.mark.parametrize(
    ("method", "headers", "allowed"),
    [
        ("GET", {}, True),
        ("GET", {"Host": "localhost:8000"}, True),
        ("GET", {"Host": "[::1]:8000"}, True),
        ("GET", {"Host": "evil.example"}, False),
        ("GET", {"Host": "evil.example:8000"}, False),
        ("GET", {"Host": "localhost.evil.example"}, False),
        ("GET", {"Host": "localhost@evil.example"}, False),
        ("GET", {"Host": "[::1"}, False),
        ("GET", {"Host": ""}, False),
        ("POST", {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}, True),
        ("POST", {"Origin": "http://evil.example"}, False),
        ("POST", {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:3000"}, False),
        ("POST", {"Origin": "null"}, False),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, False),
        ("DELETE", {"Origin": "http://evil.example"}, False),
    ],
    ids=str,
)
def test_requests_of_other_sites_are_refused(serve, method, headers, allowed):
    path = {"GET": "/settings", "POST": UPLOAD, "DELETE": "/jobs/x"}[method]
    with serve() as page:
        status, _, answer = page.request(method, path, IMAGE if method == "POST" else None, headers)
        assert (status != 403) == allowed, answer
        assert allowed or (set(answer) == {"error"} and page.files() == [])


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),
        ("GET", "/demo.js", {}),
        ("GET", "/none", {}),
        ("POST", "/", {}),
        ("GET", "/settings", {"Host": "evil.example"}),
        ("POST", "/jobs?scale=x", {}),
    ],
)
def test_every_response_has_security_headers(serve, method, path, headers):
    with serve() as page:
        _, headers, _ = page.request(method, path, headers=headers)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_many_clients_at_once(tmp_path):
    report = storm(tmp_path, clients=12, rounds=20, seed=0)
    assert report["unexpected"] == [] and report["alive"]
    assert report["done"] > 15 and report["failed"] > 5 and report["refused"] > 50
    assert report["growth_mib"] < GROWTH_MIB
    assert report["most_mib"] < FOLDER_MIB
