"""Animations keep frames, times, plays and transparency; damage leaves no output."""

import io
import weakref

import numpy as np
import pytest
from PIL import Image

import espan
from espan import InputError, LimitError, Limits, OutputError, Size, Upscaler, animation
from espan.cli import main
from espan.images import files
from tests.support.makers import nearest_net, noise

UP = Upscaler(nearest_net(), device="cpu", dtype="fp32")
TIMES = [40, 100, 70, 30, 250]
WRITTEN = [".gif", ".png", ".webp", ".avif"]


def shape(number: int, alpha: bool, size=(20, 14)) -> np.ndarray:
    """A square that moves over an opaque or transparent background."""
    pixels = np.zeros((size[1], size[0], 4), np.uint8)
    pixels[:] = (0, 0, 0, 0) if alpha else (30, 60, 90, 255)
    left = 2 + 2 * (number % 6)
    pixels[3:9, left : left + 6] = (200, 6 * number, 60, 255)
    return pixels if alpha else pixels[..., :3]


def make(path, alpha=False, times=TIMES, **options):
    first, *others = [Image.fromarray(shape(i, alpha)) for i in range(len(times))]
    if path.suffix == ".gif" and alpha:
        options["disposal"] = 2
    if path.suffix in (".webp", ".avif"):
        options |= {"quality": 100, "lossless": True}
    first.save(path, save_all=True, append_images=others, duration=times, **options)
    return path


def shown(path) -> list[np.ndarray]:
    with Image.open(path) as image:
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGBA")).astype(int))
        return frames


def durations(path) -> list[float]:
    with Image.open(path) as image:
        found = []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            found.append(image.info["duration"])
        return found


def convert(source, target, scale=4, up=UP, **options):
    return animation.convert(source, target, up, scale, **options)


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "transparent"])
@pytest.mark.parametrize("target", WRITTEN)
@pytest.mark.parametrize("source", [".gif", ".png", ".webp"])
def test_frames_and_times(tmp_path, source, target, alpha):
    path = make(tmp_path / f"a{source}", alpha)
    report = convert(path, tmp_path / f"b{target}")
    assert (report.frames, report.width, report.height) == (5, 80, 56)
    assert durations(tmp_path / f"b{target}") == TIMES
    # Bicubic alpha does not change pixels far from edges.
    for frame, before in zip(shown(tmp_path / f"b{target}"), shown(path), strict=True):
        expected = before.repeat(4, 0).repeat(4, 1)
        shifts = [(y, x) for y in (-8, 0, 8) for x in (-8, 0, 8)]
        near = [np.roll(expected, shift, (0, 1)) == expected for shift in shifts]
        solid = np.all(near, axis=0).all(2)
        visible = solid & (expected[..., 3] > 0)
        assert np.abs(frame - expected)[visible].max() <= {".png": 2, ".gif": 12}.get(target, 60)
        assert (frame[..., 3] == expected[..., 3])[solid].all()


@pytest.mark.parametrize("target", [".gif", ".png", ".webp"])
@pytest.mark.parametrize(("loop", "plays"), [(0, 0), (1, 1), (3, 3)])
def test_number_of_plays(tmp_path, target, loop, plays):
    path = make(tmp_path / "a.png", loop=loop)
    convert(path, tmp_path / f"b{target}")
    again = animation.reading.inspect(tmp_path / f"b{target}", 1, Limits())
    assert again.plays == plays


def test_a_gif_without_a_count_plays_once(tmp_path):
    convert(make(tmp_path / "a.gif"), tmp_path / "b.gif")
    with Image.open(tmp_path / "b.gif") as image:
        assert "loop" not in image.info


def test_rounded_times_keep_their_sum(tmp_path):
    path = make(tmp_path / "a.png", times=[33] * 30)
    convert(path, tmp_path / "b.gif", 2)
    assert abs(sum(durations(tmp_path / "b.gif")) - 990) <= 5
    assert set(durations(tmp_path / "b.gif")) <= {30, 40}


def test_default_image_of_a_png_is_not_a_frame(tmp_path):
    first, *others = [Image.fromarray(shape(i, False)) for i in range(3)]
    path = tmp_path / "a.png"
    first.save(path, save_all=True, append_images=others, duration=[50, 60], default_image=True)
    convert(path, tmp_path / "b.webp")
    assert durations(tmp_path / "b.webp") == [50, 60]


def test_profile_and_sizes(tmp_path):
    path = make(tmp_path / "a.png", icc_profile=b"p" * 200)
    report = convert(path, tmp_path / "b.png", Size(width=30))
    assert (report.width, report.height) == (30, 21)
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["icc_profile"] == b"p" * 200


@pytest.mark.parametrize("target", WRITTEN)
def test_every_frame_is_counted(tmp_path, target):
    path, seen = make(tmp_path / "a.png"), []
    convert(path, tmp_path / f"b{target}", progress=lambda *counts: seen.append(counts))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_equal_frames_keep_their_times(tmp_path):
    still = iter([Image.fromarray(shape(i // 2, False)) for i in range(4)])
    with (tmp_path / "a.png").open("wb") as file:
        animation.writing.write(file, "PNG", still, [40, 50, 60, 70], 0, None)
    for suffix in (".gif", ".png"):
        convert(tmp_path / "a.png", tmp_path / f"b{suffix}")
        assert durations(tmp_path / f"b{suffix}") == [40, 50, 60, 70]


@pytest.mark.parametrize("source", WRITTEN)
def test_upscaler_refuses_animations(tmp_path, source):
    path = make(tmp_path / f"a{source}")
    with pytest.raises(InputError, match=r"an animation of 5 frames; see espan.upscale_animation"):
        UP(path)
    with Image.open(path) as image, pytest.raises(InputError, match="has 5 frames or pages"):
        UP(image)
    with pytest.raises(InputError, match="the bytes: an animation of 5 frames"):
        UP(path.read_bytes())
    with Image.open(path) as image:
        assert UP(image.copy().convert("RGB")).size == (80, 56)


def damaged(path):
    data = path.read_bytes()
    path.write_bytes(data[: 2 * len(data) // 3])
    return path


@pytest.mark.parametrize("source", [".gif", ".png", ".webp"])
def test_damage_in_the_middle(tmp_path, source):
    path = damaged(make(tmp_path / f"a{source}"))
    with pytest.raises(InputError, match=rf"a\{source}: ") as caught:
        convert(path, tmp_path / "b.gif")
    assert "\n" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_refusals(tmp_path):
    path = make(tmp_path / "a.gif", alpha=True)
    still = files.write(tmp_path / "still.png", Image.fromarray(noise(4, 4, 3)))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"\.jpg cannot hold an animation \(known: \.gif, \.png"):
        convert(path, tmp_path / "b.jpg")
    with pytest.raises(OutputError, match="no such folder"):
        convert(path, tmp_path / "none/b.gif")
    with pytest.raises(InputError, match="would replace its input"):
        convert(path, path)
    with pytest.raises(InputError, match="a single image, not an animation"):
        convert(still, tmp_path / "b.gif")
    with pytest.raises(InputError, match=r"missing\.gif: no such file"):
        convert(tmp_path / "missing.gif", tmp_path / "b.gif")
    with pytest.raises(LimitError, match=r"a\.gif: 20 x 14 pixels are over the limit of 9"):
        convert(path, tmp_path / "b.gif", limits=Limits(max_input=9))
    assert sorted(tmp_path.iterdir()) == before


def test_frames_are_not_kept(tmp_path, monkeypatch):
    """Only a few results are in memory at a time."""
    made, most = [], []

    def counted(image, scale):
        result = image.resize((4 * image.width, 4 * image.height))
        made.append(weakref.ref(result))
        most.append(sum(each() is not None for each in made))
        return result

    path = make(tmp_path / "a.png", times=[40] * 40)
    for target in WRITTEN:
        counted.limits, counted.device = Limits(), UP.device
        convert(path, tmp_path / f"b{target}", up=counted)
    assert max(most) <= 8


def test_python_function(tmp_path, weights):
    path = make(tmp_path / "a.gif")
    out = espan.upscale_animation(path, tmp_path / "b.png", 2, model=weights, device="cpu")
    assert out == tmp_path / "b.png" and len(shown(out)) == 5


@pytest.fixture
def run(weights):
    def upscale(*arguments) -> int:
        return main(["upscale", "--device=cpu", "-n", weights, *map(str, arguments)])

    return upscale


def test_command_with_files_and_folders(tmp_path, run, capsys):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in/a.gif")
    make(tmp_path / "in/b.webp", alpha=True)
    Image.fromarray(shape(0, False)).save(tmp_path / "in/still.gif")
    assert run(tmp_path / "in", "-o", tmp_path / "out") == 0
    found = {path.name: len(shown(path)) for path in (tmp_path / "out").glob("[!.]*")}
    assert found == {"a.gif": 5, "b.webp": 5, "still.png": 1}
    assert run(tmp_path / "in/a.gif", "-o", tmp_path / "c.png", "-s", "2") == 0
    assert len(shown(tmp_path / "c.png")) == 5
    assert run(tmp_path / "in", "-o", tmp_path / "out", "--resume") == 0
    assert capsys.readouterr().err.count("exists, skipped") == 3


def test_command_refusals(tmp_path, run, capsys):
    path, still = make(tmp_path / "a.gif"), tmp_path / "still.gif"
    Image.fromarray(shape(0, False)).save(still)
    broken = damaged(make(tmp_path / "broken.gif"))
    before = sorted(tmp_path.rglob("*"))
    for arguments, code, expected in (
        ((path, "-o", tmp_path / "b.jpg"), 1, "cannot hold an animation"),
        ((still, "-o", tmp_path / "b.gif"), 2, "cannot write .gif"),
        ((broken, "-o", tmp_path / "b.gif"), 1, "damaged or truncated"),
    ):
        assert run(*arguments) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line
    assert sorted(tmp_path.rglob("*")) == before


def test_an_animation_in_bytes_is_refused():
    first, *others = [Image.fromarray(shape(i, False)) for i in range(3)]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others)
    with pytest.raises(InputError, match="an animation of 3 frames"):
        UP(file.getvalue())
