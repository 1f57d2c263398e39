"""Several images on the web page: queue, results, and restoring both after a reload."""

import io

import pytest
from PIL import Image

from tests.support.browser import chromium, tab
from tests.support.makers import noise

pytest.importorskip("starlette", reason="the page needs Starlette: pip install 'espan[demo]'")
pytest.importorskip("uvicorn", reason="the page needs uvicorn: pip install 'espan[demo]'")

from tests.support import demo_server
from tests.support.demo_server import Slow, until

__all__ = ["chromium"]


def encoded(format: str = "PNG", *frames: Image.Image) -> bytes:
    first, *rest = frames or [Image.fromarray(noise(40, 60, 3))]
    file = io.BytesIO()
    first.save(file, format, **({"save_all": True, "append_images": rest} if rest else {}))
    return file.getvalue()


def photo(name: str = "photo.png", content: bytes | None = None) -> dict:
    content = encoded() if content is None else content
    return {"name": name, "mimeType": "image/png", "buffer": content}


THREE = [photo(f"{name}.png") for name in "abc"]


def rows(page) -> list[str]:
    """The state that each row shows."""
    return page.locator("#queue .state").all_text_contents()


def send(page, files, count: int) -> None:
    """Sends files, and waits until `count` rows are done."""
    page.set_input_files("#file", files)
    page.click("#start")
    page.wait_for_function(
        "n => document.querySelectorAll('.save:not([hidden])').length === n", arg=count
    )


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def server(tmp_path, slow):
    with demo_server.page(tmp_path, lambda _: slow, upload=50_000) as page:
        yield page
        slow.go.set()


def test_each_image_has_its_own_result(chromium, server, slow):
    slow.go.set()
    with tab(chromium, server.address) as page:
        page.set_input_files("#file", THREE)
        page.wait_for_selector("#chosen:has-text('3 images: a.png, b.png, c.png')")
        send(page, THREE, 3)
        assert page.locator("#queue .name").all_text_contents() == [f"{x}_x4.png" for x in "abc"]
        assert all("240 \u00d7 160 pixels" in row for row in rows(page))
        for number, name in enumerate(("a_x4.png", "b_x4.png", "c_x4.png")):
            with page.expect_download() as download:
                page.locator(".save").nth(number).click()
            assert download.value.suggested_filename == name
            assert Image.open(download.value.path()).size == (240, 160)
        page.locator(".show").nth(2).click()
        page.wait_for_selector("#queue li:nth-child(3)[aria-current=true]")
        assert page.get_attribute("#download", "download") == "c_x4.png"


def test_two_are_on_the_server_and_the_others_wait_in_the_browser(chromium, server, slow):
    with tab(chromium, server.address) as page:
        page.set_input_files("#file", THREE)
        page.click("#start")
        page.wait_for_selector("#queue li:nth-child(2) .state:has-text('Waiting: 1 before it')")
        assert rows(page)[2] == "Queued" and len(server.jobs._jobs) == 2
        page.locator(".remove").nth(1).click()  # the third takes its place
        page.wait_for_selector("#queue li:nth-child(2) .state:has-text('Waiting: 1 before it')")
        assert page.locator("#queue .name").all_text_contents() == ["a.png", "c.png"]
        slow.go.set()
        page.wait_for_selector("#queue li:nth-child(2) .state:has-text('240 \u00d7 160')")
    assert slow.begun == 2


def test_a_full_server_is_retried(chromium, tmp_path, slow):
    with (
        demo_server.page(tmp_path, lambda _: slow, queue=1) as server,
        tab(chromium, server.address, expected="503") as page,
    ):
        page.set_input_files("#file", THREE[:2])
        page.click("#start")
        page.wait_for_selector("#queue .state:has-text('The server is busy')")
        slow.go.set()
        for row in (1, 2):
            page.wait_for_selector(f"#queue li:nth-child({row}) .state:has-text('240 \u00d7 160')")


def test_a_bad_file_does_not_stop_the_others(chromium, server, slow):
    slow.go.set()
    files = [THREE[0], photo("notes.png", b"no"), photo("huge.png", b"x" * 60_000), THREE[2]]
    with tab(chromium, server.address) as page:
        send(page, files, 2)
        page.wait_for_function("() => document.querySelectorAll('.state.bad').length === 2")
        states = rows(page)
        assert "not an image" in states[1] and "the limit is 50,000" in states[2]
        assert "240 \u00d7 160" in states[0] and "240 \u00d7 160" in states[3]


def test_a_reload_restores_finished_and_unfinished_images(chromium, server, slow):
    slow.go.set()
    with tab(chromium, server.address) as page:
        send(page, THREE[:2], 2)
        slow.go.clear()
        page.set_input_files("#file", THREE[2])
        page.click("#start")
        page.wait_for_selector("#queue .state:has-text('about')")
        page.reload()
        page.wait_for_selector("#queue .state:has-text('about')")
        assert page.locator("#queue .name").all_text_contents() == [
            "a_x4.png",
            "b_x4.png",
            "c.png",
        ]
        page.wait_for_selector("#result:visible")
        assert page.get_attribute("#before", "src").endswith("/before")
        assert page.evaluate("document.querySelector('#before').naturalWidth") == 60
        slow.go.set()
        page.wait_for_selector("#queue li:nth-child(3) .state:has-text('240 \u00d7 160')")
        assert len(server.jobs._jobs) == 3
        page.locator(".remove").nth(0).click()
        until(lambda: len(server.jobs._jobs) == 2)
        page.reload()
        page.wait_for_selector("#queue li:nth-child(2) .save:visible")
        assert page.locator("#queue li").count() == 2


def test_deleted_results_are_reported_after_a_reload(chromium, server, slow):
    slow.go.set()
    with tab(chromium, server.address) as page:
        send(page, THREE[:2], 2)
        first = next(iter(server.jobs._jobs.values()))
        server.jobs.drop(first)
        page.reload()
        page.wait_for_selector("#status:has-text('The server has deleted 1 of 2 results')")
        assert page.locator("#queue li").count() == 1
    with tab(chromium, server.address) as page:  # another tab starts empty
        assert page.locator("#queue li").count() == 0


def test_a_query_for_many_images_is_limited_and_needs_their_ids(server, slow):
    slow.go.set()
    id = server.upscale(encoded())["id"]
    status, _, states = server.request("GET", f"/jobs?id={id}&id=x&id=../{id}" + "&id=y" * 1000)
    assert status == 200 and [*states] == [id] and states[id]["state"] == "done"
    assert server.request("GET", "/jobs")[2] == {}
    assert server.request("GET", "/jobs?" + "&".join(["id=y"] * 64 + [f"id={id}"]))[2] == {}


def test_an_animation_goes_through_the_page(chromium, tmp_path):
    frames = [Image.fromarray(noise(12, 16, 3, seed=seed)) for seed in range(3)]
    with (
        demo_server.page(tmp_path) as server,
        tab(chromium, server.address) as page,
    ):
        for number, (format, name) in enumerate(
            [("GIF", "cat.gif"), ("PNG", "cat.png"), ("WEBP", "cat.webp")], 1
        ):
            send(page, photo(name, encoded(format, *frames)), number)
            with page.expect_download() as download:
                page.locator(".save").nth(number - 1).click()
            assert download.value.suggested_filename == name.replace("cat", "cat_x4")
            result = Image.open(download.value.path())
            assert (result.format, result.n_frames, result.size) == (format, 3, (64, 48))
        page.reload()
        page.wait_for_selector("#result:visible")
        assert page.evaluate("document.querySelector('#before').naturalWidth") == 16


ESTIMATE = "([item, now]) => estimate({first: 0, began: 0, step: 0, ...item}, now)"


def test_estimated_progress_never_passes_the_next_count(chromium, server):
    with tab(chromium, server.address) as page:

        def estimate(now: float, **item) -> float | None:
            return page.evaluate(ESTIMATE, [{"pace": 0, **item}, now])

        assert estimate(500, done=0, counted=0) is None  # no rate is known
        paced = [estimate(now, done=0, counted=0, pace=0.5) for now in (0, 100, 1000, 1900, 1e6)]
        assert paced[0] == 0 and paced[1] == pytest.approx(0.05, abs=0.005)
        assert paced == sorted(paced) and paced[-1] <= 0.99
        # A quarter took a second; the next quarter has not been counted.
        steps = [
            estimate(now, done=0.25, step=0.25, counted=1000) for now in (1000, 1100, 1500, 1e6)
        ]
        assert steps[0] == 0.25 and 0.27 < steps[1] < steps[2] < 0.5 and steps[3] <= 0.5
        assert estimate(1e6, done=1, counted=1000, step=0.25) == 0.99
        assert estimate(2000, done=0.5, first=0.5, counted=0) == 0.5  # seen for the first time


def test_the_bar_moves_between_counts_and_does_not_reach_the_end(chromium, server, slow):
    with tab(chromium, server.address) as page:
        page.set_input_files("#file", THREE[0])
        page.click("#start")
        page.wait_for_selector("#queue .state:has-text('about')")
        until(lambda: server.jobs._jobs)
        next(iter(server.jobs._jobs.values())).pace = 0.05  # the only count is 0.5
        value = "document.querySelector('progress').value"
        page.wait_for_function(f"() => {value} > 0.51")
        assert page.evaluate(value) <= 0.99 and "100 %" not in rows(page)[0]
        slow.go.set()
        page.wait_for_selector("#queue .state:has-text('240 \u00d7 160')")


def test_the_pace_is_known_after_an_earlier_image(tmp_path):
    with demo_server.page(tmp_path) as page:
        first = page.events(page.send(encoded())[1]["id"])
        assert all("pace" not in event for event in first)
        job = page.jobs.get(page.upscale(encoded())["id"])
        assert job.pace > 0
        other = page.jobs.get(page.upscale(encoded(), scale=2)["id"])
        assert other.pace == 0  # another network


def test_an_image_that_the_server_has_lost_is_an_error(chromium, server, slow):
    with tab(chromium, server.address, expected="404") as page:
        page.set_input_files("#file", THREE[0])
        page.click("#start")
        page.wait_for_selector("#queue .state:has-text('about')")
        page.evaluate(
            "const item = queue.items[0]; item.events.close(); item.id = 'x'; item.follow()"
        )
        page.wait_for_selector("#problem:has-text('The server no longer has this image')")
        assert page.text_content("#queue .remove") == "Remove"
