"""The web page in a browser: send an image, wait, compare, save; messages for bad files."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from espan import Upscaler
from tests.support.browser import chromium, shown_at, split, tab
from tests.support.makers import nearest_net, noise

pytest.importorskip("starlette", reason="the page needs Starlette: pip install 'espan[demo]'")
pytest.importorskip("uvicorn", reason="the page needs uvicorn: pip install 'espan[demo]'")

from tests.support import demo_server
from tests.support.demo_server import Slow, until

__all__ = ["chromium"]


def encoded(pixels: np.ndarray, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


PIXELS = noise(40, 60, 3)
PHOTO = {"name": "photo.png", "mimeType": "image/png", "buffer": encoded(PIXELS)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    upscaler = Upscaler(nearest_net(), device="cpu", dtype="fp32")
    folder = tmp_path_factory.mktemp("server")
    with demo_server.page(folder, lambda _: upscaler, upload=50_000) as page:
        yield page


@pytest.fixture
def page(chromium, server):
    with tab(chromium, server.address) as page:
        yield page


def upscale(page, file=PHOTO) -> None:
    page.set_input_files("#file", file)
    page.click("#start")
    page.wait_for_selector("#result:visible")


def test_send_wait_compare_save(page, server):
    page.set_input_files("#file", PHOTO)
    page.wait_for_selector("#chosen:has-text('60 \u00d7 40')")
    page.check("[name=scale][value='2']", force=True)
    assert "becomes 120 \u00d7 80" in page.text_content("#chosen")
    page.click("#start")
    page.wait_for_selector("#result:visible")
    assert "photo_x2.png: 120 \u00d7 80 pixels" in page.text_content("#status")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "photo_x2.png"
    result = Image.open(download.value.path())
    result.load()
    assert result.format == "PNG" and result.size == (120, 80)
    assert all(url.startswith((server.address, "blob:")) for url in page.requested)


def test_a_size_instead_of_a_factor(page):
    page.set_input_files("#file", PHOTO)
    page.check("[name=scale][value='']", force=True)
    page.fill("#pixels", "150")
    page.wait_for_selector("#chosen:has-text('becomes 150 \u00d7 100')")
    page.select_option("#side", "fit")
    page.click("#start")
    page.wait_for_selector("#result:visible")
    assert "photo_150x150.png: 150 \u00d7 100 pixels" in page.text_content("#status")


def test_the_result_has_the_upscalers_pixels(page):
    upscale(page)
    with page.expect_download() as download:
        page.click("#download")
    result = np.asarray(Image.open(download.value.path()))
    np.testing.assert_array_equal(result, PIXELS.repeat(4, 0).repeat(4, 1))


def test_the_divider_shows_one_image_left_and_the_other_right(chromium, tmp_path):
    class Red(Slow):  # makes a red result for every image
        def __call__(self, image, scale, progress):
            return Image.new("RGB", [round(side * scale) for side in image.size], "red")

    blue = np.zeros((40, 60, 3), np.uint8)
    blue[..., 2] = 255
    file = {**PHOTO, "buffer": encoded(blue)}
    with (
        demo_server.page(tmp_path, lambda _: Red()) as server,
        tab(chromium, server.address) as page,
    ):
        upscale(page, file)
        page.focus(".handle")
        for key, percent in [("Home", 0), ("End", 100), ("PageDown", 90), ("ArrowLeft", 88)]:
            page.keyboard.press(key)
            assert split(page) == percent
        assert shown_at(page, ".pane", 0.8, 0.2) == (0, 0, 255)
        assert shown_at(page, ".pane", 0.95, 0.2) == (255, 0, 0)
        box = page.locator(".pane").bounding_box()
        x, y = box["x"], box["y"] + box["height"] / 2
        page.mouse.move(x + 0.88 * box["width"], y)
        page.mouse.down()
        page.mouse.move(x + 0.25 * box["width"], y, steps=4)
        page.mouse.up()
        assert split(page) == 25
        assert shown_at(page, ".pane", 0.2, 0.2) == (0, 0, 255)
        assert shown_at(page, ".pane", 0.3, 0.2) == (255, 0, 0)
        page.mouse.move(x + 0.6 * box["width"], y)  # released, it stays
        assert split(page) == 25


def test_zoom_and_move(page):
    def place(selector="#after") -> tuple[float, float, float]:
        """Left, top and width in the pane."""
        box, pane = (page.locator(each).bounding_box() for each in (selector, ".pane"))
        return box["x"] - pane["x"], box["y"] - pane["y"], box["width"]

    upscale(page)
    whole = place()
    assert whole == pytest.approx((0, 0, page.locator(".pane").bounding_box()["width"]), abs=1)
    page.click("[data-zoom=in]")
    page.click("[data-zoom=in]")
    near = place()
    assert near[2] == pytest.approx(2.25 * whole[2], rel=0.01) and near == place("#before")
    page.focus(".pane")
    page.keyboard.press("ArrowRight")
    moved = place()
    assert moved[0] < near[0] and moved[1:] == near[1:]
    at = page.locator(".pane").bounding_box()
    page.mouse.move(at["x"] + 50, at["y"] + 150)
    page.mouse.down()
    page.mouse.move(at["x"] + 80, at["y"] + 190, steps=3)
    page.mouse.up()
    assert place() == pytest.approx((moved[0] + 30, moved[1] + 40, moved[2]), abs=1)
    assert split(page) == 50
    page.keyboard.press("0")
    assert place() == whole
    page.click("[data-zoom=exact]")
    assert place()[2] == pytest.approx(max(240, whole[2]), abs=1)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            {"name": "notes.png", "mimeType": "image/png", "buffer": b"no"},
            "notes.png: not an image",
        ),
        ({**PHOTO, "buffer": PHOTO["buffer"][:3000]}, "photo.png: damaged or truncated"),
        ({**PHOTO, "buffer": b"x" * 60_000}, "the limit is 50,000"),
    ],
    ids=["text", "cut", "large"],
)
def test_a_bad_file_gives_a_message_and_a_good_one_works_after_it(page, file, message):
    page.set_input_files("#file", file)
    page.click("#start")
    page.wait_for_selector("#problem:visible")
    assert message in page.text_content("#problem")
    assert not page.is_visible("#result") and not page.is_visible("progress")
    assert message.rpartition(": ")[2] in page.text_content("#queue .state.bad")
    upscale(page)
    assert not page.is_visible("#problem")


def test_an_image_that_the_browser_cannot_show_is_previewed(page):
    tiff = {"name": "scan.tif", "mimeType": "image/tiff", "buffer": encoded(PIXELS, "TIFF")}
    upscale(page, tiff)
    assert page.get_attribute("#before", "src").endswith("/before")
    assert page.evaluate("document.querySelector('#before').naturalWidth") == 60


def test_dropped_and_pasted(page):
    code = """([bytes, kind]) => {
        const data = new DataTransfer();
        const file = (name) => new File([new Uint8Array(bytes)], name, {type: "image/png"});
        data.items.add(file("there.png"));
        if (kind === "drop") data.items.add(file("here.png"));
        const how = {bubbles: true, cancelable: true};
        document.body.dispatchEvent(kind === "drop"
            ? new DragEvent(kind, {dataTransfer: data, ...how})
            : new ClipboardEvent(kind, {clipboardData: data, ...how}));
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(code, [list(PHOTO["buffer"]), kind])
        page.wait_for_selector("#chosen:has-text('there')")
        page.click("#start")
        page.wait_for_selector("#result:visible")
        assert page.locator("#queue > *").count() == (2 if kind == "drop" else 3)
        page.reload()


def test_by_keyboard_alone(page):
    page.set_input_files("#file", PHOTO)  # this step opens a window of the system
    page.focus("#file")
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "start"
    page.keyboard.press("Enter")
    page.wait_for_selector("#result:visible")
    seen = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.className || document.activeElement.id"))
    assert {"pane", "handle", "button main push"} <= seen


def test_every_control_has_a_name(page):
    upscale(page)
    tree = page.locator("body").aria_snapshot()
    for role in ("button", "combobox", "radio", "slider", "link", "img"):
        lines = [line for line in tree.splitlines() if re.match(rf" *- '?{role}\b", line)]
        assert lines and all('"' in line for line in lines), f"a {role} without a name: {lines}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(chromium, server, scheme):
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with tab(chromium, server.address, **phone) as page:
        upscale(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        light = sum(shown_at(page, "body", 0.01, 0.5)) > 380
        assert light == (scheme == "light")


def test_cancelling_and_leaving_free_the_place(chromium, tmp_path):
    slow = Slow()
    with demo_server.page(tmp_path, lambda _: slow, queue=1, grace=2) as server:
        with tab(chromium, server.address) as page:
            page.set_input_files("#file", PHOTO)
            page.click("#start")
            until(lambda: slow.begun == 1)
            page.wait_for_selector("#queue .state:has-text('about')")
            page.click("#queue .remove")
            until(lambda: not server.jobs._jobs)
            page.click("#start")
            until(lambda: slow.begun == 2)
            page.wait_for_selector("#queue .state:has-text('about')")
            page.goto("about:blank")
            until(lambda: not server.jobs._jobs)
        slow.go.set()
