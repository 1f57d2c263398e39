"""Headless system Chromium for tests of web pages."""

import io
import shutil
from contextlib import contextmanager

import pytest
from PIL import Image

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium():
    """A browser; skips with a reason if it is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium on PATH")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def tab(chromium, address: str, expected: str | None = None, **context):
    """A loaded page; fails at the end if the browser reported errors.

    expected: text in the errors that are allowed.
    """
    context = chromium.new_context(**{"viewport": {"width": 1000, "height": 900}} | context)
    page, errors, requested = context.new_page(), [], []
    page.set_default_timeout(60_000)
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.requested = requested
    page.goto(address)
    try:
        yield page
        assert [text for text in errors if not expected or expected not in text] == []
    finally:
        context.close()


def split(page) -> int:
    """The position of the divider in percent."""
    return int(page.get_attribute(".handle", "aria-valuenow"))


def shown_at(page, selector: str, across: float, down: float) -> tuple[int, int, int]:
    """The displayed colour at a fraction of an element's width and height."""
    image = Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")
    return image.getpixel((int(across * image.width), int(down * image.height)))
