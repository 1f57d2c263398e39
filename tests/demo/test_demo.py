"""The web page's server: results, progress, names, refused requests, shutdown."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from espan import Upscaler
from espan.cli import main
from tests.support.makers import RGB, noise, png

pytest.importorskip("starlette", reason="the page needs Starlette: pip install 'espan[demo]'")
pytest.importorskip("uvicorn", reason="the page needs uvicorn: pip install 'espan[demo]'")

from espan.demo import app
from tests.support import demo_server
from tests.support.demo_server import Slow, listening, tiny


def encoded(pixels: np.ndarray, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


IMAGE = encoded(noise(20, 30, 3))


@pytest.fixture
def page(tmp_path):
    (tmp_path / "server").mkdir()
    with demo_server.page(tmp_path / "server", upload=20_000, pixels=200_000) as page:
        yield page


@pytest.mark.parametrize(
    ("options", "format", "size"),
    [
        ({}, "PNG", (120, 80)),
        ({"scale": 2, "name": "b.JPEG"}, "JPEG", (60, 40)),
        ({"scale": 1.5, "format": "webp"}, "WEBP", (45, 30)),
        ({"name": "c.tif", "scale": 3}, "PNG", (90, 60)),
        ({"scale": 8}, "PNG", (240, 160)),
        ({"width": 150}, "PNG", (150, 100)),
        ({"fit": "50x50"}, "PNG", (50, 33)),
    ],
    ids=str,
)
def test_an_image_is_upscaled(page, options, format, size):
    last = page.upscale(IMAGE, **options)
    assert last["state"] == "done" and (last["width"], last["height"]) == size
    status, headers, content = page.request("GET", f"/jobs/{last['id']}/result")
    result = Image.open(io.BytesIO(content))
    assert status == 200 and (result.format, result.size) == (format, size)
    assert headers["content-type"] == f"image/{format.lower()}"


def test_the_pixels_equal_those_of_an_upscaler(page):
    last = page.upscale(IMAGE)
    result = Image.open(io.BytesIO(page.request("GET", f"/jobs/{last['id']}/result")[2]))
    expected = tiny("espan-x4")(noise(20, 30, 3))
    np.testing.assert_array_equal(np.asarray(result), expected)


def test_progress_and_the_place_in_the_queue_are_reported(tmp_path):
    slow = Slow()
    with demo_server.page(tmp_path, lambda _: slow) as page:
        first, second = (page.send(IMAGE)[1]["id"] for _ in range(2))
        with listening(page, first) as events, listening(page, second) as waiting:
            assert {"state": "working", "done": 0.5} in (next(events), next(events))
            assert next(waiting) == {"state": "waiting", "ahead": 1}
            slow.go.set()
            assert list(events)[-1]["state"] == list(waiting)[-1]["state"] == "done"


def test_a_file_given_on_the_command_line_is_offered_by_number_only(tmp_path, weights, net):
    with demo_server.page(tmp_path, paths=[weights]) as page:
        _, _, settings = page.request("GET", "/settings")
        assert settings["models"]["1"] == {"name": "tiny", "scale": 4}
        assert weights not in str(settings)
        last = page.upscale(IMAGE, model="1")
        result = Image.open(io.BytesIO(page.request("GET", f"/jobs/{last['id']}/result")[2]))
        expected = Upscaler(net, device="cpu", dtype="fp32")(noise(20, 30, 3)).astype(int)
        assert np.abs(np.asarray(result) - expected).max() <= 1
        for other in (weights, "2", "espan-x4", "../1"):
            status, answer = page.send(IMAGE, model=other)
            assert status == 400 and weights not in str(answer)


@pytest.mark.parametrize(
    "options",
    [{"scale": s} for s in ("0", "65", "nan", "inf", "x", "")]
    + [{"format": "exe"}, {"width": "0"}, {"fit": "10"}],
    ids=str,
)
def test_wrong_queries_are_refused_before_the_upload(page, options):
    status, answer = page.send(IMAGE, **options)
    assert status == 400 and next(iter(options)) in answer["error"]
    assert page.files() == []


TWO_FRAMES = [Image.new("L", (4, 4), c) for c in (0, 255)]


def animated() -> bytes:
    file = io.BytesIO()
    TWO_FRAMES[0].save(file, "GIF", save_all=True, append_images=TWO_FRAMES[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<script>alert(1)</script>", "not an image"),
        (IMAGE[: len(IMAGE) // 2], "damaged or truncated"),
        (png(60_000, 60_000, 8, RGB, b"\0"), "limit|too large"),
        (encoded(noise(113, 113, 3), "JPEG"), "over the output limit of 200,000"),
        (png(4, 4, 8, RGB, None), "damaged"),
        (animated()[:-9], "damaged"),
        (encoded(noise(16, 16, 3), "ICO", sizes=[(16, 16)]), "not an image"),
    ],
    ids=["empty", "text", "cut", "bomb", "large", "no pixels", "half an animation", "ico"],
)
def test_a_bad_file_gives_a_message_and_leaves_nothing(page, content, reason):
    last = page.upscale(content, name="holiday.png")
    assert last["state"] == "failed" and re.search(reason, last["error"])
    assert last["error"].startswith("holiday.png: ")
    assert str(page.jobs.folder) not in last["error"] and last["id"] not in last["error"]
    assert page.files() == []
    assert page.request("GET", f"/jobs/{last['id']}/result")[0] == 404


def test_an_unsuitable_format_is_refused_before_the_work(tmp_path):
    with demo_server.page(tmp_path, lambda _: Slow()) as page:
        last = page.upscale(encoded(noise(4, 4, 4)), format="jpg")
        assert last["state"] == "failed" and "cannot hold transparency" in last["error"]
        assert str(tmp_path) not in last["error"]


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("../../etc/passwd.png", "passwd_x4.png"),
        ("..\\..\\boot.jpg", "boot_x4.jpg"),
        ('a"\r\nSet-Cookie: x.png', 'a"Set-Cookie: x_x4.png'),
        ("фото.png", "фото_x4.png"),
        ("/", "image_x4.png"),
        ("..", "image_x4.png"),
        ("\0.png", "png_x4.png"),
        ("x" * 5000 + ".png", "x" * 96 + "_x4.png"),
    ],
    ids=ascii,
)
def test_names_are_only_shown(page, name, saved):
    last = page.upscale(IMAGE, name=name)
    assert last["name"] == saved
    _, headers, _ = page.request("GET", f"/jobs/{last['id']}/result")
    assert headers["content-disposition"] == f"attachment; filename*=UTF-8''{quote(saved, '')}"
    assert "set-cookie" not in headers
    suffix = saved[saved.rindex(".") :]
    names = [f"{last['id']}.before.png", f"{last['id']}{suffix}"]
    assert page.files() == sorted(page.jobs.folder / each for each in names)
    assert list(page.jobs.folder.parent.iterdir()) == [page.jobs.folder]


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/..%2f..%2fpyproject.toml",
        "/compare.html",
        "//etc/passwd",
        "/jobs/../settings/events",
        "/jobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd/result",
        "/jobs/..%5c..%5cx/before",
        "/jobs/none/events",
        "/jobs/none/result",
        "/docs",
        "/openapi.json",
    ],
)
def test_nothing_else_is_served(page, path):
    status, _, content = page.request("GET", path)
    assert status == 404 and set(content) == {"error"}


def test_an_image_can_be_deleted(page):
    last = page.upscale(IMAGE)
    assert page.request("DELETE", f"/jobs/{last['id']}")[0] == 204
    assert page.files() == []
    assert page.request("DELETE", f"/jobs/{last['id']}")[0] == 404


def test_ids_cannot_be_guessed(page):
    ids = {page.upscale(IMAGE)["id"] for _ in range(5)}
    assert len(ids) == 5 and min(map(len, ids)) >= 22


def test_the_preview_is_in_a_format_that_browsers_show(page):
    last = page.upscale(encoded(noise(9, 7, 3), "TIFF"), name="a.tif")
    before = page.request("GET", f"/jobs/{last['id']}/before")[2]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(before))), noise(9, 7, 3))
    assert page.request("GET", f"/jobs/{last['id']}/anything")[0] == 404


def test_every_file_of_the_page_is_in_the_package_and_served(page):
    pages = resources.files("espan") / "pages"
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"pages/*"' in project
    html = page.request("GET", "/")[2].decode()
    for name in re.findall(r'(?:href|src)="([^"#]+)"', html):
        status, _, content = page.request("GET", f"/{name}")
        assert status == 200 and content == (pages / name).read_bytes()
    for each in pages.iterdir():  # no requests to other servers
        assert not re.search(r"https?://(?!www\.w3\.org)|@import|//cdn", each.read_text())


def test_a_port_in_use_is_a_one_line_error(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--port", str(port)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line == f"espan: 127.0.0.1, port {port}: address already in use; choose another with --port"
    )


@pytest.mark.parametrize(
    "arguments", [["--port", "99999"], ["--host", "no such host"], ["--queue", "0"]], ids=" ".join
)
def test_usage_errors_exit_with_2(arguments, capsys):
    try:
        code = main(["demo", *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and "Traceback" not in capsys.readouterr().err


def test_a_missing_extra_is_a_one_line_error(monkeypatch, capsys):
    for name in [each for each in sys.modules if each.startswith("espan.demo")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["demo"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'espan[demo]'" in line


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_graceful_shutdown(tmp_path, end):
    command = [sys.executable, "-m", "espan.cli", "demo", "--port", "0", "--device", "cpu"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        line = server.stderr.readline()
        page = demo_server.Page(int(re.search(r":(\d+) in a browser", line)[1]))
        _, answer = page.send(encoded(noise(400, 400, 3)))
        with listening(page, answer["id"]) as events:  # an open stream, an image in progress
            next(events)
            assert len(list(tmp_path.iterdir())) == 1
            server.send_signal(end)
            assert server.wait(timeout=120) == 0
        assert server.stderr.read() == ""
    finally:
        server.kill()
        server.communicate()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.shared
def test_corpus_of_malformed_files(shared, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(app, "POLL", 0.005)
    paths = sorted(p for p in (shared / "data/malformed").rglob("*") if p.is_file())
    assert paths
    with demo_server.page(tmp_path, pixels=4_000_000) as page:
        for path in paths:
            last = page.upscale(path.read_bytes(), name=path.name, scale=1)
            assert last["state"] in ("done", "failed")
            assert last["state"] == "done" or str(tmp_path) not in last["error"]
            assert last.get("error") != "internal error", path
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
