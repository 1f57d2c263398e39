"""`espan compare`: page and sheet show the networks' results, with the scores of `espan eval`."""

import base64
import io
import re
from functools import partial

import numpy as np
import pytest
from PIL import Image

import espan
from espan import LimitError, OutputError, Upscaler, comparison
from espan.cli import main
from espan.comparison import page as page_file
from espan.comparison.sheet import draw, most_different
from espan.evaluation.benchmark import bicubic, evaluate
from espan.images import files
from espan.images.resize import downscale
from tests.support.browser import chromium, shown_at, split, tab
from tests.support.makers import nearest_net, noise, random_net

__all__ = ["chromium"]


@pytest.fixture
def folder(tmp_path):
    """small.png, original.png (x4, two columns more), tiny.safetensors, nearest.safetensors."""
    large = noise(14, 17, 3).repeat(12, 0).repeat(12, 1)[:, :202]
    files.write(tmp_path / "original.png", Image.fromarray(large))
    files.write(tmp_path / "small.png", Image.fromarray(downscale(large[:, :200], 4)))
    espan.save(random_net(), tmp_path / "tiny.safetensors")
    espan.save(nearest_net(), tmp_path / "nearest.safetensors")
    return tmp_path


@pytest.fixture
def compare(folder, monkeypatch):
    """compare(arguments): runs both networks, returns the exit code."""
    monkeypatch.chdir(folder)
    models = ["-n", "tiny.safetensors", "-n", "nearest.safetensors"]
    return lambda *arguments: main(["compare", "--device=cpu", *arguments, *models])


def figures(path) -> dict[str, np.ndarray]:
    """{name: pixels} of the images in a page."""
    found = re.findall(r'data-name="([^"]*)".*?base64,([^"]+)"', path.read_text(), re.S)
    pngs = {name: io.BytesIO(base64.b64decode(data)) for name, data in found}
    return {name: np.asarray(Image.open(png)) for name, png in pngs.items()}


def test_the_page_contains_the_exact_pixels(compare, folder, capsys):
    assert compare("small.png", "original.png", "-o", "page.html") == 0
    shown = figures(folder / "page.html")
    small = files.read_rgb(folder / "small.png")
    assert list(shown) == ["bicubic", "tiny", "nearest", "original"]
    np.testing.assert_array_equal(shown["bicubic"], bicubic(4)(small))
    np.testing.assert_array_equal(
        shown["tiny"], Upscaler(random_net(), device="cpu", dtype="fp32")(small)
    )
    np.testing.assert_array_equal(shown["nearest"], small.repeat(4, 0).repeat(4, 1))
    original = files.read_rgb(folder / "original.png")[:, :200]
    np.testing.assert_array_equal(shown["original"], original)
    assert "page.html" in capsys.readouterr().err


def test_scores_are_those_of_eval(compare, folder, tmp_path, capsys):
    assert compare("small.png", "original.png", "-o", "page.html") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (folder / "set/HR").mkdir(parents=True)
    (folder / "original.png").rename(folder / "set/HR/original.png")
    (folder / "set/LRx4").mkdir()
    (folder / "small.png").rename(folder / "set/LRx4/original.png")
    for name, upscaler in [
        ("bicubic", bicubic(4)),
        ("tiny", Upscaler(random_net(), device="cpu", dtype="fp32")),
        ("nearest", Upscaler(nearest_net(), device="cpu", dtype="fp32")),
    ]:
        row = next(evaluate(upscaler, folder / "set", 4)).values
        expected = [f"{v:.3f}" if k.startswith("psnr") else f"{v:.4f}" for k, v in row.items()]
        assert lines[0] == [*row] and [name, *expected] in lines
        page = (folder / "page.html").read_text()
        assert f"{row['psnr_y']:.2f}" in page and f"{row['ssim_rgb']:.4f}" in page


def test_equal_images_are_called_equal(folder):
    enlarged = files.read_rgb(folder / "small.png").repeat(4, 0).repeat(4, 1)
    files.write(folder / "original.png", Image.fromarray(enlarged))
    espan.compare(
        folder / "small.png",
        folder / "original.png",
        device="cpu",
        models=[folder / "nearest.safetensors"],
        output=folder / "page.html",
    )
    assert re.search(r'nearest</th><td class="best">equal</td>', (folder / "page.html").read_text())


def test_from_python_with_the_built_in_network(folder):
    outputs = [folder / "page.html", folder / "sheet.png"]
    result = espan.compare(folder / "small.png", device="cpu", output=outputs)
    assert [pane.name for pane in result.panes] == ["bicubic", "espan-x4"]
    assert not result.panes[1].scores and "<table" not in outputs[0].read_text()
    assert len(figures(outputs[0])) == 2


def test_a_page_is_self_contained(compare, folder):
    assert compare("small.png", "-o", "page.html", "--quiet") == 0
    page = (folder / "page.html").read_text()
    assert not re.search(r"https?://|<link|@import|src=\"(?!data:)", page)
    assert sorted(p.name for p in folder.iterdir() if "espan-" in p.name) == []


def test_names_are_shown_as_they_are(chromium, folder):
    name = '<img src=x onerror=alert(1)>"&.png'
    (folder / "small.png").rename(folder / name)
    model = folder / '"><script>alert(2)<.safetensors'
    (folder / "tiny.safetensors").rename(model)
    espan.compare(folder / name, device="cpu", models=[model], output=folder / "page.html")
    with tab(chromium, f"file://{folder}/page.html") as page:
        assert name in page.text_content("h1")
        assert page.text_content("figure:last-child figcaption") == model.stem
        assert page.locator("img").count() == 4 and page.locator("script").count() == 1


def test_slider_and_zoom_from_a_file(chromium, compare, folder):
    assert compare("small.png", "original.png", "-o", "page.html") == 0
    with tab(chromium, f"file://{folder}/page.html") as page:
        assert split(page) == 50
        page.select_option("#left", label="original")
        page.select_option("#right", label="nearest")
        names = [page.text_content(f"#{side}-tag") for side in ("left", "right")]
        assert names == ["original", "nearest"]
        shown = figures(folder / "page.html")
        for key, name in [("Home", "nearest"), ("End", "original")]:
            page.focus(".handle")
            page.keyboard.press(key)
            page.focus("#swap")
            seen = shown_at(page, "#slider .pane", 0.26, 0.51)
            height, width = shown[name].shape[:2]
            there = shown[name][int(0.51 * height), int(0.26 * width)]
            assert np.abs(np.subtract(seen, there)).max() < 40
        page.click("#swap")
        assert page.text_content("#left-tag") == "nearest"
        page.click("[data-zoom=in]")
        sizes = page.evaluate(
            "[...document.querySelectorAll('.pane')].map((pane) => "
            "pane.querySelector('img').clientWidth / pane.clientWidth)"
        )
        assert len(sizes) == 5 and sizes == pytest.approx([1.5] * 5, abs=0.02)
        assert all(url.startswith(("file:", "data:")) for url in page.requested)


def test_the_page_fits_a_phone(chromium, compare, folder):
    assert compare("small.png", "original.png", "-o", "page.html") == 0
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    with tab(chromium, f"file://{folder}/page.html", **phone) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_sheet_shows_the_same_crop_of_each(compare, folder):
    large = noise(20, 30, 3).repeat(10, 0).repeat(10, 1)
    files.write(folder / "small.png", Image.fromarray(large))
    assert compare("small.png", "-o", "page.html", "--sheet", "sheet.png") == 0
    on_cpu = partial(Upscaler, device="cpu")
    result = comparison.make(folder / "small.png", None, [folder / "nearest.safetensors"], on_cpu)
    left, top, width, height = most_different(result)
    assert (width, height) == (360, 360)
    sheet = np.asarray(Image.open(folder / "sheet.png"))
    piece = result.panes[1].pixels[top : top + height, left : left + width]
    assert sheet.shape[2] == 3 and not (sheet == 255).all()
    wanted = draw(result)
    assert wanted.width == 3 * (360 + 16) + 16  # the full image, bicubic, nearest
    at = np.asarray(wanted)[16 : 16 + 360, 16 + 2 * 376 : 16 + 2 * 376 + 360]
    np.testing.assert_array_equal(at, piece)


def test_small_images_are_not_cropped_on_the_sheet(folder):
    result = espan.compare(
        folder / "small.png",
        folder / "original.png",
        device="cpu",
        models=[folder / "nearest.safetensors"],
        output=folder / "sheet.PNG",
    )
    sheet = np.asarray(Image.open(folder / "sheet.PNG"))
    height, width = result.panes[0].pixels.shape[:2]
    for i, pane in enumerate(result.panes):
        left = 16 + i * (240 + 16)
        np.testing.assert_array_equal(sheet[16 : 16 + height, left : left + width], pane.pixels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["small.png", "small.png"], "expected 2, 3 or 4 times the 50 x 42 pixels of"),
        (["original.png", "small.png"], "small.png: expected 2, 3 or 4 times the 202 x 168"),
        (["small.png", "half.png"], "tiny.safetensors: a network of x4, but half.png is x2"),
        (["none.png"], "none.png: no such file"),
        (["small.png", "none.png"], "none.png: no such file"),
        (["small.png", "-n", "espan-x2"], "tiny.safetensors: a network of x4, but espan-x2 is x2"),
        (["small.png", "-n", "none.pth"], "none.pth: no such weights file"),
        (["small.png", "-n", "./tiny.safetensors"], None),
        (["small.png", "-n", "tiny.safetensors"], "tiny.safetensors: this name is given twice"),
        (["dot.png", "dots.png"], "dots.png: cannot be scored: "),
        (["small.png", "-o", "page.pdf"], "page.pdf: expected .html (a page) or .png"),
    ],
    ids=str,
)
def test_invalid_arguments_are_a_one_line_error(compare, folder, arguments, message, capsys):
    half = Image.fromarray(noise(84, 100, 3))
    files.write(folder / "half.png", half)
    files.write(folder / "dot.png", half.crop((0, 0, 3, 3)))
    files.write(folder / "dots.png", half.crop((0, 0, 12, 12)))
    output = [] if "-o" in arguments else ["-o", "page.html"]
    code = compare(*arguments, *output)
    shown = capsys.readouterr()
    if message is None:
        assert code == 0 and "./tiny" not in shown.err
    else:
        (line,) = shown.err.splitlines()
        assert code == 2 and message in line
        assert not (folder / "page.html").exists()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["-o", "small.png"], "small.png: would replace an input"),
        (["-o", "page.html", "--sheet", "../original.png"], "would replace an input"),
        (["-o", "sheet.png", "--sheet", "sheet.png"], "sheet.png: is given twice"),
        (["-o", "page.html", "--sheet", "sheet.html"], "expected a name that ends in .png"),
    ],
)
def test_no_output_replaces_an_input_or_another(
    compare, folder, monkeypatch, capsys, outputs, message
):
    before = (folder / "small.png").read_bytes(), (folder / "original.png").read_bytes()
    (folder / "here").mkdir()
    monkeypatch.chdir(folder if ".." not in outputs[-1] else folder / "here")
    lr, hr = folder / "small.png", folder / "original.png"
    assert main(["compare", "--device=cpu", str(lr), str(hr), *outputs]) == 2
    assert message in capsys.readouterr().err
    assert before == (lr.read_bytes(), hr.read_bytes())


@pytest.mark.parametrize("name", ["no/folder/page.html", "taken.html"])
def test_an_impossible_output_fails_before_the_work(folder, name, monkeypatch):
    (folder / "taken.html").mkdir()
    monkeypatch.setattr(files, "read_rgb", None)
    with pytest.raises(OutputError, match=re.escape(name)):
        espan.compare(folder / "small.png", device="cpu", output=folder / name)


def test_too_large_for_a_page(folder, monkeypatch):
    monkeypatch.setattr(comparison, "MAX_PIXELS", 50_000)
    with pytest.raises(LimitError, match="2 images of 200 x 168 pixels exceed the limit"):
        espan.compare(folder / "small.png", device="cpu", output=folder / "page.html")


def test_a_failed_write_keeps_the_old_page(folder, monkeypatch):
    (folder / "page.html").write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page_file, "_figure", full)
    with pytest.raises(OutputError, match=r"page\.html: could not be written: No space left"):
        espan.compare(folder / "small.png", device="cpu", output=folder / "page.html")
    assert (folder / "page.html").read_text() == "old"
    assert not list(folder.glob(".espan-*"))
