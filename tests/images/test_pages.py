"""TIFFs of several pages: upscaled page by page, by files, bytes and the command line."""

import io
import struct
import weakref

import numpy as np
import pytest
from PIL import Image, ImageCms

import espan
from espan import InputError, LimitError, Limits, OutputError, Upscaler
from espan.cli import main
from espan.execution import streaming
from espan.execution.pages import upscale_pages
from espan.images import files
from tests.support.makers import noise, random_net

UP = Upscaler(random_net(), device="cpu", dtype="fp32")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def images() -> list:
    """Pages of several sizes and modes, and what a file says of each."""
    second = Image.fromarray(noise(9, 7, 1, seed=1)[:, :, 0])
    second.info["dpi"] = (300, 300)
    third = Image.fromarray(noise(6, 5, 4, seed=2))
    first = Image.fromarray(noise(8, 10, 3))
    first.info |= {"icc_profile": PROFILE, "dpi": (72, 72)}
    deep = espan.Image16(noise(5, 6, 3, dtype=np.uint16, seed=3))
    return [first, second, third, deep]


def make(path, pages=None, big: bool = False):
    with files.opened(path) as file:
        into = files.Pages(file, ".tif")
        into.big = big
        for each in pages or images():
            files.write(into, each)
    return path


def shown(path) -> list:
    return list(files.read_pages(path, Limits()))


def same(one, other) -> bool:
    pixels = [each.pixels if each.mode == "RGB;16" else np.asarray(each) for each in (one, other)]
    return one.mode == other.mode and np.array_equal(*pixels)


@pytest.mark.parametrize("big", [False, True])
def test_pages_are_written_as_other_programs_read_them(tmp_path, big):
    path = make(tmp_path / "a.tif", big=big)
    assert path.read_bytes()[2] == (43 if big else 42)
    with Image.open(path) as image:
        assert image.n_frames == 4
        for number, page in enumerate(images()[:3]):
            image.seek(number)
            assert image.mode == page.mode and np.array_equal(np.asarray(image), np.asarray(page))
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    with tifffile.TiffFile(path) as read:
        pixels = [page.asarray() for page in read.pages]
    assert np.array_equal(pixels[3], images()[3].pixels) and len(pixels) == 4


@pytest.mark.parametrize("scale", [4, 2.5, espan.Size(width=30)], ids=str)
def test_every_page_becomes_what_it_becomes_alone(tmp_path, scale):
    path = make(tmp_path / "a.tif")
    told = []
    out = UP(path, scale, output=tmp_path / "b.tif", progress=lambda *each: told.append(each))
    results = shown(out)
    assert len(results) == 4
    for page, result in zip(shown(path), results, strict=True):
        assert same(result, UP(page, scale))
    pixels = sum(page.size[0] * page.size[1] for page in images())
    assert told[-1] == (pixels, pixels) and told == sorted(told)


def test_each_page_keeps_its_own_metadata(tmp_path):
    out = UP(make(tmp_path / "a.tif"), output=tmp_path / "b.tif")
    infos = [page.info for page in shown(out)]
    assert [info.get("icc_profile") for info in infos] == [PROFILE, None, None, None]
    assert [info.get("dpi") for info in infos[:2]] == [(72, 72), (300, 300)]
    assert infos[2].get("dpi") != (300, 300)


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "group4", None])
def test_files_of_other_programs(tmp_path, compression):
    first, second, *_ = images()
    kinds = {"jpeg": [first, second], "group4": [first.convert("1"), second.convert("1")]}
    pages = kinds.get(compression, [first, first.convert("P"), second.convert("1"), second])
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression, exif=exif)
    results = shown(UP(path, output=tmp_path / "b.tif"))
    assert len(results) == len(pages)
    for page, result in zip(shown(path), results, strict=True):
        assert same(result, UP(page))
    assert results[0].size == (4 * 8, 4 * 10)  # turned as its EXIF says


def test_bytes_and_open_files(tmp_path):
    path = make(tmp_path / "a.tif")
    expected = UP(path, output=tmp_path / "b.tif").read_bytes()
    assert UP(path.read_bytes()) == expected
    target = io.BytesIO()
    with path.open("rb") as file:
        assert UP(file, output=target) is target
    assert target.getvalue() == expected


def test_large_pages_are_written_in_strips(tmp_path, monkeypatch):
    path = make(tmp_path / "a.tif")
    expected = UP(path, output=tmp_path / "b.tif").read_bytes()
    used, stream = [], streaming.stream_upscaled
    monkeypatch.setattr(streaming, "LARGE", 1)
    monkeypatch.setattr(streaming, "stream_upscaled", lambda *all: (used.append(1), stream(*all)))
    got = UP(path, output=tmp_path / "c.tif")
    assert len(used) == 4
    assert all(map(same, shown(got), shown(tmp_path / "b.tif")))
    assert len(got.read_bytes()) == pytest.approx(len(expected), rel=0.1)


def test_one_page_is_in_memory_at_a_time(tmp_path):
    made, most = [], []

    class Counted:
        limits = Limits()

        def __call__(self, image, scale, progress=None):
            most.append(sum(each() is not None for each in made))
            result = image.resize((4 * image.width, 4 * image.height))
            made.append(weakref.ref(result))
            return result

    path = make(tmp_path / "a.tif", [Image.fromarray(noise(5, 6, 3, seed=i)) for i in range(30)])
    report = upscale_pages(path, tmp_path / "b.tif", Counted(), 4)
    assert (report.frames, report.width, report.height) == (30, 24, 20)
    assert max(most) <= 2


def damaged(path, page: int):
    """The file with the pixels of a page (from 0) overwritten."""
    with Image.open(path) as image:
        image.seek(page)
        at, length = image.tag_v2[273][0], image.tag_v2[279][0]
    data = bytearray(path.read_bytes())
    data[at : at + length] = b"\x55" * length
    path.write_bytes(data)
    return path


def test_damage_names_the_page(tmp_path):
    path = damaged(make(tmp_path / "a.tif"), 2)
    with pytest.raises(InputError, match=r"a\.tif: page 3: damaged or truncated") as caught:
        UP(path, output=tmp_path / "b.tif")
    assert "\n" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["a.tif"]


def test_truncated_pages_are_read_as_far_as_it_goes_on_request(tmp_path, caplog):
    first, second, *_ = images()
    path = tmp_path / "a.tif"
    first.save(path, save_all=True, append_images=[first, second])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.tif: page 3: damaged or truncated"):
        UP(path, output=tmp_path / "b.tif")
    lenient = Upscaler(UP.network, device="cpu", limits=Limits(allow_truncated=True))
    assert len(shown(lenient(path, output=tmp_path / "b.tif"))) == 3
    assert "a.tif: page 3: damaged or truncated, read as far as it goes" in caplog.text


def test_a_chain_of_pages_that_is_broken(tmp_path):
    path = make(tmp_path / "a.tif")
    data = bytearray(path.read_bytes())
    (place,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, place)
    link = place + 2 + 12 * entries
    for wrong in (len(data) + 99, 3):
        struct.pack_into("<I", data, link, wrong)
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.tif: ") as caught:
            UP(path, output=tmp_path / "b.tif")
        assert "\n" not in str(caught.value)
    struct.pack_into("<I", data, link, place)  # to itself: one page that ends
    path.write_bytes(data)
    assert UP(path).size == (40, 32)
    assert [each.name for each in tmp_path.iterdir()] == ["a.tif"]


def test_what_cannot_be(tmp_path):
    path = make(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: 4 pages, .* name a \.tif file as output$"):
        UP(path)
    with pytest.raises(OutputError, match=r"a\.tif: 4 pages, which .*b\.png cannot hold; name a"):
        UP(path, output=tmp_path / "b.png")
    with pytest.raises(OutputError, match=r"4 pages, which the open file cannot hold"):
        UP(path.read_bytes(), output=io.BytesIO(), format="png")
    with pytest.raises(InputError, match=r"4 frames or pages; .* the file's path with a \.tif"):
        UP(Image.open(path))
    with pytest.raises(InputError, match=r"a\.tif: 4 pages"):
        UP([path])
    with pytest.raises(LimitError, match=r"a\.tif: page 2: 7 x 9 pixels are over the limit of 60"):
        small = [Image.fromarray(noise(5, 6, 3)), *images()[1:]]
        make(path, small)
        Upscaler(UP.network, device="cpu", limits=Limits(max_input=60))(
            path, output=tmp_path / "b.tif"
        )
    with pytest.raises(LimitError, match=r"page 2: 7 x 9 pixels .* over the output limit"):
        Upscaler(UP.network, device="cpu", limits=Limits(max_output=600))(
            path, output=tmp_path / "b.tif"
        )
    with pytest.raises(OutputError, match="no such folder"):
        UP(path, output=tmp_path / "none/b.tif")
    assert [each.name for each in tmp_path.iterdir()] == ["a.tif"]


def test_the_command(tmp_path, weights, capsys):
    run = ["upscale", "--device=cpu", "-n", weights]
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in/a.tif")
    files.write(tmp_path / "in/b.png", images()[0])
    assert main([*run, str(path)]) == 0
    assert len(shown(tmp_path / "in/a_x4.tif")) == 4
    (tmp_path / "in/a_x4.tif").unlink()
    assert main([*run, str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    assert sorted(each.name for each in (tmp_path / "out").glob("[!.]*")) == ["a.tif", "b.png"]
    assert len(shown(tmp_path / "out/a.tif")) == 4
    capsys.readouterr()
    assert main([*run, str(path), "-o", str(tmp_path / "c.png")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "4 pages, which" in line and line.endswith("name a .tif file as output")
    assert main([*run, str(damaged(path, 1)), "-o", str(tmp_path / "c.tif")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.tif: page 2: damaged" in line
    assert not [*tmp_path.glob("c.*")]
