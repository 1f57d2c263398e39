"""`espan upscale` with videos among its inputs."""

import json
import os

import pytest
from PIL import Image

from espan.cli import main, video
from espan.errors import DeviceLostError
from espan.images import files
from espan.upscaler import Upscaler
from tests.support.makers import noise

av = pytest.importorskip("av", reason="PyAV is not installed")

from tests.support import clips  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    """An image, two clips, and a folder with an image and a clip."""
    (tmp_path / "in").mkdir()
    files.write(tmp_path / "a.png", Image.fromarray(noise(5, 6, 3)))
    files.write(tmp_path / "in/b.png", Image.fromarray(noise(5, 6, 3)))
    clips.make(tmp_path / "one.mp4", 3, sound=True)
    clips.make(tmp_path / "two.avi", 3, codec="mpeg4")
    clips.make(tmp_path / "in/three.mp4", 3)
    return tmp_path


@pytest.fixture
def upscale(weights):
    def run(*arguments) -> int:
        return main(
            ["upscale", "--device=cpu", "-n", weights, "--dtype", "fp32", *map(str, arguments)]
        )

    return run


def names(folder) -> set[str]:
    found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(folder)) for p in found}


def size(path) -> tuple[int, int]:
    frame = clips.frames(path)[0]
    return frame.width, frame.height


def test_beside_their_inputs(folder, upscale, capsys):
    before = names(folder)
    assert upscale(folder / "one.mp4", folder / "two.avi", "-s", "2") == 0
    assert names(folder) - before == {"one_x2.mp4", "two_x2.mkv"}
    assert size(folder / "one_x2.mp4") == (64, 48)
    shown = capsys.readouterr()
    assert shown.out == "" and "one_x2.mp4 64 x 48" in shown.err


def test_images_videos_and_folders_together(folder, upscale, caplog, capsys):
    caplog.set_level("INFO")
    out = folder / "out"
    inputs = [folder / "a.png", folder / "one.mp4", folder / "in"]
    assert upscale(*inputs, "-o", f"{out}/", "--json") == 0
    assert names(out) == {"a.png", "one.mp4", "b.png"}
    rows = json.loads(capsys.readouterr().out)
    assert {row["output"] for row in rows} == {str(out / name) for name in names(out)}
    assert all(row["status"] == "done" for row in rows)
    assert "three.mp4: skipped, video in a folder; name it to upscale it" in caplog.text


def test_options_of_the_encoder(folder, upscale):
    out = folder / "out.mkv"
    options = [
        "--codec",
        "hevc",
        "--crf",
        "30",
        "--preset",
        "ultrafast",
        "--pix-fmt",
        "yuv420p10le",
    ]
    assert upscale(folder / "one.mp4", "-o", out, *options) == 0
    with av.open(str(out)) as result:
        assert result.streams.video[0].codec_context.name == "hevc"
        assert result.streams.video[0].pix_fmt == "yuv420p10le"
        assert result.streams.audio[0].codec_context.name == "aac"


@pytest.mark.parametrize("wrong", [("--crf", "nan"), ("--crf", "-1"), ("--preset", "hasty")])
def test_invalid_encoder_options_are_usage_errors(folder, upscale, wrong):
    assert upscale(folder / "one.mp4", folder / "two.avi", "-o", f"{folder}/out/", *wrong) == 2


def test_existing_results_are_skipped_on_request(folder, upscale, capsys):
    out = folder / "out.mp4"
    out.write_bytes(b"mine")
    assert upscale(folder / "one.mp4", "-o", out, "--skip-existing") == 0
    assert out.read_bytes() == b"mine" and "skipped" in capsys.readouterr().err
    assert upscale(folder / "one.mp4", "-o", out, "--quiet") == 0
    assert size(out) == (128, 96) and capsys.readouterr().err == ""


def test_resume_skips_results_newer_than_their_input(folder, upscale, capsys):
    clip, out = folder / "one.mp4", folder / "out.mp4"
    assert upscale(clip, "-o", out, "--resume") == 0
    assert upscale(clip, "-o", out, "--resume") == 0
    assert "out.mp4 exists, skipped" in capsys.readouterr().err
    os.utime(out, (1, 1))
    assert upscale(clip, "-o", out, "--resume") == 0
    assert "skipped" not in capsys.readouterr().err


def test_shards_share_the_videos(folder, upscale, capsys):
    done = []
    for part in ("1/2", "2/2"):
        inputs = [folder / "one.mp4", folder / "two.avi"]
        assert upscale(*inputs, "-o", f"{folder}/out/", "--shard", part, "--json") == 0
        done += [row["output"] for row in json.loads(capsys.readouterr().out)]
    assert sorted(done) == [f"{folder}/out/one.mp4", f"{folder}/out/two.mkv"]
    assert names(folder / "out") == {"one.mp4", "two.mkv"}


def test_no_result_replaces_an_input_or_another_result(folder, upscale, capsys):
    one, made = folder / "one.mp4", folder / "one_x2.mp4"
    made.write_bytes(before := (folder / "in/three.mp4").read_bytes())
    assert upscale("-s", "2", one, made) == 1
    assert made.read_bytes() == before
    assert "one_x2.mp4 would replace an input" in capsys.readouterr().err
    other = one.rename(folder / "three.mp4")
    assert upscale(folder / "in/three.mp4", other, "-o", f"{folder}/out/", "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert "is already the result of" in rows[1]["error"]


def test_a_folder_that_cannot_be_created_fails_only_its_video(folder, upscale, capsys):
    assert upscale(folder / "one.mp4", folder / "two.avi", "-o", f"{folder}/a.png/x/") == 1
    shown = capsys.readouterr().err
    assert shown.count("could not be created") == 2 and "2 of 2 failed" in shown


def test_images_and_videos_share_an_output_folder(folder, upscale):
    out = folder / "results"
    assert upscale(folder / "a.png", folder / "one.mp4", "-o", out) == 0
    assert names(out) == {"a.png", "one.mp4"}
    assert upscale(folder / "two.avi", folder / "one.mp4", "-o", folder / "b.png") == 2


def test_a_lost_device_ends_the_run_and_finished_files_are_reported(
    folder, upscale, capsys, monkeypatch
):
    convert_one = video._convert

    def lost(path, *rest):
        if path.name == "two.avi":
            raise DeviceLostError("cuda:0: gone")
        return convert_one(path, *rest)

    monkeypatch.setattr(video, "_convert", lost)
    assert upscale(folder / "one.mp4", folder / "two.avi", folder / "a.png", "--json") == 1
    shown = capsys.readouterr()
    assert [row["status"] for row in json.loads(shown.out)] == ["done"]
    assert "one_x4.mp4 128 x 96" in shown.err and "cuda:0: gone" in shown.err


def test_images_and_videos_share_one_network(folder, upscale, monkeypatch):
    made, original = [], Upscaler.__init__

    def counted(self, *arguments, **options):
        made.append(self)
        original(self, *arguments, **options)

    monkeypatch.setattr(Upscaler, "__init__", counted)
    assert upscale(folder / "a.png", folder / "one.mp4") == 0
    assert len(made) == 1


def test_a_size_instead_of_a_factor(folder, upscale):
    assert upscale(folder / "one.mp4", "--fit", "300x60") == 0
    assert size(folder / "one_300x60.mp4") == (80, 60)
    assert upscale(folder / "one.mp4", "-o", folder / "more.mkv", "-s", "6") == 0
    assert size(folder / "more.mkv") == (192, 144)
