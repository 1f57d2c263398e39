"""Animations on the web page: they keep all frames, or fail with the reason."""

import io

import pytest
from PIL import Image

from tests.support.makers import noise

pytest.importorskip("starlette", reason="the page needs Starlette: pip install 'espan[demo]'")
pytest.importorskip("uvicorn", reason="the page needs uvicorn: pip install 'espan[demo]'")

from tests.support import demo_server


def encoded(pixels, format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def animated() -> bytes:
    file, frames = io.BytesIO(), [Image.new("L", (4, 4), grey) for grey in (0, 255)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.fixture
def page(tmp_path):
    with demo_server.page(tmp_path) as page:
        yield page


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"name": "a.gif"}, "GIF"), ({}, "PNG"), ({"name": "a.gif", "format": "webp"}, "WEBP")],
    ids=str,
)
def test_an_animation_keeps_its_frames(page, options, kind):
    last = page.upscale(animated(), **options)
    assert last["state"] == "done" and (last["width"], last["height"]) == (16, 16)
    _, headers, content = page.request("GET", f"/jobs/{last['id']}/result")
    result = Image.open(io.BytesIO(content))
    assert (result.format, result.n_frames) == (kind, 2)
    assert headers["content-type"] == f"image/{kind.lower()}"
    names = [f"{last['id']}.before.gif", f"{last['id']}.{kind.lower()}"]
    assert page.files() == sorted(page.jobs.folder / name for name in names)
    _, headers, before = page.request("GET", f"/jobs/{last['id']}/before")
    assert headers["content-type"] == "image/gif" and before == animated()


def test_formats_without_animations_are_refused(page):
    last = page.upscale(animated(), name="a.gif", format="jpg")
    assert last["state"] == "failed" and "cannot hold an animation" in last["error"]
    still = page.upscale(encoded(noise(4, 4), "GIF"), name="a.gif")
    assert still["state"] == "done" and still["name"] == "a_x4.png"
    last = page.upscale(encoded(noise(4, 4), "PNG"), format="gif")
    assert last["state"] == "failed" and "cannot write .gif" in last["error"]
