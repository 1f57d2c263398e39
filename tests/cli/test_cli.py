"""The `espan` command: exit codes, stdout and stderr, folders, one bad file among good ones."""

import json

import numpy as np
import pytest
from PIL import Image

from espan import Upscaler
from espan.checkpoints.weights import save
from espan.cli import main
from espan.images import files
from tests.support.makers import noise, random_net


def tree(folder) -> list[str]:
    """The files below a folder, without its journal."""
    return sorted(
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".espan-journal"
    )


def test_one_file_beside_its_input(images, upscale, net, capsys):
    assert upscale(images / "a.png") == 0
    expected = Upscaler(net, device="cpu", dtype="fp32")(noise(5, 6, 3))
    np.testing.assert_array_equal(np.asarray(Image.open(images / "a_x4.png")), expected)
    shown = capsys.readouterr()
    assert shown.out == "" and "a_x4.png 24 x 20" in shown.err


def test_one_file_to_one_file(images, upscale, tmp_path):
    assert upscale(images / "a.png", "-o", tmp_path / "big.jpg") == 0
    with Image.open(tmp_path / "big.jpg") as image:
        assert image.format == "JPEG" and image.size == (24, 20)


def test_a_missing_output_folder_is_created(images, upscale, tmp_path):
    assert upscale(images / "a.png", "-o", f"{tmp_path}/new/folder/") == 0
    assert tree(tmp_path / "new") == ["folder/a.png"]


def test_folder_keeps_its_structure(images, upscale, tmp_path):
    assert upscale(images, "-o", tmp_path / "out") == 0
    assert tree(tmp_path / "out") == ["a.png", "deep/er/b.webp"]


def test_results_of_a_folder_default_to_a_folder_beside_it(images, upscale, tmp_path):
    assert upscale(images) == 0
    assert tree(tmp_path / "in_x4") == ["a.png", "deep/er/b.webp"]


@pytest.mark.parametrize("format", ["png", "jpg", "webp", "TIF", ".bmp"])
def test_format(images, upscale, tmp_path, format):
    assert upscale(images, "-o", tmp_path / "out", "-f", format) == 0
    ending = format.lower().lstrip(".")
    assert tree(tmp_path / "out") == [f"a.{ending}", f"deep/er/b.{ending}"]
    with Image.open(tmp_path / f"out/a.{ending}") as image:
        assert image.format == files.WRITE_FORMATS[f".{ending}"]


@pytest.mark.parametrize(("scale", "tag", "size"), [("2", "2", (12, 10)), ("1.5", "1.5", (9, 8))])
def test_scale(images, upscale, scale, tag, size):
    assert upscale(images / "a.png", "-s", scale) == 0
    assert Image.open(images / f"a_x{tag}.png").size == size


@pytest.mark.parametrize("tile", ["auto", "none", "0", "3"])
def test_tile_changes_nothing(images, upscale, tmp_path, tile):
    out = tmp_path / "out.png"
    assert upscale(images / "a.png", "-o", out, "-t", tile) == 0
    upscale(images / "a.png")
    difference = np.asarray(Image.open(out), int) - np.asarray(Image.open(images / "a_x4.png"))
    assert np.abs(difference).max() <= 1  # rounding may differ


def test_existing_results_are_skipped_on_request(images, upscale, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"mine")
    assert upscale(images, "-o", out, "--skip-existing", "--json") == 0
    assert (out / "a.png").read_bytes() == b"mine"
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == ["skipped", "done"]
    assert upscale(images, "-o", out) == 0
    assert Image.open(out / "a.png").size == (24, 20)


def test_stdout_has_only_json(images, upscale, capsys):
    (images / "bad.png").write_bytes(b"")
    assert upscale(images / "a.png", images / "bad.png", "--json") == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert good["status"] == "done" and (good["width"], good["height"]) == (24, 20)
    assert good["input"] == str(images / "a.png")
    assert good["output"] == str(images / "a_x4.png")
    assert bad["status"] == "failed" and bad["error"].endswith("bad.png: empty file")


def test_quiet_prints_only_errors(images, upscale, capsys):
    (images / "bad.png").write_bytes(b"")
    assert upscale(images / "a.png", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert upscale(images / "bad.png", "--quiet") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [f"espan: {images}/bad.png: empty file"]


def test_one_bad_file_does_not_stop_the_others(images, upscale, tmp_path, capsys):
    (images / "a0.png").write_bytes(b"no image")
    assert upscale(images, "-o", tmp_path / "out") == 1
    assert tree(tmp_path / "out") == ["a.png", "deep/er/b.webp"]
    err = capsys.readouterr().err
    assert f"{images}/a0.png: not an image" in err and "1 of 3 failed" in err


def test_failed_write_does_not_stop_the_others(images, upscale, tmp_path, monkeypatch, capsys):
    save_image, calls = Image.Image.save, []

    def full_once(self, target, *args, **how):
        calls.append(target)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        return save_image(self, target, *args, **how)

    monkeypatch.setattr(Image.Image, "save", full_once)
    assert upscale(images, "-o", tmp_path / "out", "--jobs", 1, "-f", "webp") == 1
    assert tree(tmp_path / "out") == ["deep/er/b.webp"]
    assert "a.webp: could not be written: No space left on device" in capsys.readouterr().err


def test_a_missing_input_does_not_stop_the_others(images, upscale, capsys):
    assert upscale(images / "none.png", images / "a.png") == 1
    assert "none.png: no such file" in capsys.readouterr().err
    assert (images / "a_x4.png").exists()


def test_two_images_never_share_a_result(images, upscale, tmp_path, capsys):
    files.write(images / "a.jpg", Image.fromarray(noise(9, 9, 3)))
    assert upscale(images, "-o", tmp_path / "out", "-f", "png") == 1
    assert "is already the result of" in capsys.readouterr().err
    assert tree(tmp_path / "out") == ["a.png", "deep/er/b.png"]


def test_aliases_of_a_format_match_the_extension(images, upscale, tmp_path):
    assert upscale(images / "a.png", "-o", tmp_path / "big.jpg", "-f", "jpeg") == 0
    assert upscale(images / "a.png", "-o", tmp_path / "big.tiff", "-f", "tif") == 0


def test_no_result_replaces_its_input(images, upscale, capsys):
    before = (images / "a.png").read_bytes()
    assert upscale(images / "a.png", "-o", images / "a.png") == 1
    assert "would replace an input" in capsys.readouterr().err
    assert (images / "a.png").read_bytes() == before


def test_results_inside_the_input_folder_are_not_inputs(images, upscale):
    for _ in range(2):
        assert upscale(images, "-o", images / "out") == 0
    assert tree(images / "out") == ["a.png", "deep/er/b.webp"]


def test_transparency_into_jpeg_is_refused_before_the_work(images, upscale, monkeypatch, capsys):
    files.write(images / "alpha.png", Image.fromarray(noise(4, 4, 4)))
    monkeypatch.setattr("espan.execution.calls.enlarge_one", None)
    assert upscale(images / "alpha.png", "-f", "jpg") == 1
    assert "JPEG cannot hold transparency" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["фото.png", "写真 1.png", "x" * 245 + ".png"])
def test_names_of_every_kind(tmp_path, upscale, name):
    files.write(tmp_path / "a.png", Image.fromarray(noise(3, 3, 3))).rename(tmp_path / name)
    assert upscale(tmp_path / name, "-o", f"{tmp_path}/out/") == 0
    assert tree(tmp_path / "out") == [name]


def test_name_longer_than_any_file(upscale, capsys):
    assert upscale("x" * 300 + ".png") == 1
    assert "name too long" in capsys.readouterr().err.lower()


def test_folder_without_images(tmp_path, upscale, capsys):
    (tmp_path / "empty").mkdir()
    assert upscale(tmp_path / "empty") == 1
    assert "no images in" in capsys.readouterr().err


def test_interrupted(images, upscale, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("espan.execution.calls.enlarge_one", interrupted)
    assert upscale(images, "-o", tmp_path / "out") == 130
    assert "interrupted" in capsys.readouterr().err
    assert tree(tmp_path / "out") == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["upscal"],
        ["upscale"],
        ["upscale", "a.png", "--scael", "2"],
        ["upscale", "a.png", "-s", "big"],
        ["upscale", "a.png", "-s", "65"],
        ["upscale", "a.png", "-s", "0"],
        ["upscale", "a.png", "-t", "-3"],
        ["upscale", "a.png", "-f", "xyz"],
        ["upscale", "a.png", "-o", "b.png", "-f", "jpg"],
        ["upscale", "a.png", "--dtype", "int8"],
        ["upscale", "a.png", "--backend", "magic"],
        ["upscale", "a.png", "--jobs", "0"],
        ["upscale", "a.png", "--gpu", "0,0"],
        ["upscale", "a.png", "--gpu", "0,-1"],
        ["upscale", "a.png", "--shard", "0/2"],
        ["upscale", "a.png", "--shard", "3/2"],
        ["upscale", "a.png", "--shard", "1"],
        ["upscale", "a.png", "--resume", "--skip-existing"],
        ["upscale", "a.png", "--engine", "ray", "--gpu", "0"],
        ["upscale", "a.png", "-o", "b.gif"],
        ["upscale", "a.png", "-o", "b"],
        ["upscale", "a.png", "--device", "abacus"],
        ["upscale", "a.png", "--resume"],
        ["upscale", "a.png", "--crf", "20"],
        ["upscale", "a.png", "--on-error", "stop"],
        ["upscale", "a.mp4", "-f", "png"],
        ["upscale", "a.mp4", "-o", "a.png"],
        ["eval"],
        ["eval", "--data", ".", "--scale", "5"],
        ["eval", "--data", ".", "--bicubic", "-n", "x4"],
        ["train"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(arguments, weights, capsys):
    if arguments[1:] and arguments[0] == "upscale":
        arguments = [*arguments, "-n", weights]
        if not {"--gpu", "--device"} & {*arguments}:
            arguments += ["--device=cpu"]
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err


def test_bad_weights_are_one_line(images, capsys):
    assert (
        main(
            [
                "upscale",
                "--device",
                "cpu",
                str(images / "a.png"),
                "-n",
                str(images / "notes.txt"),
            ]
        )
        == 2
    )
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "notes.txt: " in lines[0]


@pytest.mark.shared
def test_corpus_of_malformed_files(shared, tmp_path, capsys):
    save(random_net(channels=4), tmp_path / "net.safetensors")
    paths = [str(p) for p in sorted((shared / "data/malformed").rglob("*")) if p.is_file()]
    arguments = [
        "--device",
        "cpu",
        "-n",
        str(tmp_path / "net.safetensors"),
        "-o",
        f"{tmp_path}/out/",
        "--json",
    ]
    assert main(["upscale", *paths, *arguments]) == 1
    shown = capsys.readouterr()
    rows = json.loads(shown.out)
    assert [row["input"] for row in rows] == paths
    assert "Traceback" not in shown.err and "Warning" not in shown.err
    done = {row["output"] for row in rows if row["status"] == "done"}
    assert done == {f"{tmp_path}/out/{name}" for name in tree(tmp_path / "out")}
    slow = [row["input"] for row in rows if row["seconds"] and row["seconds"] > 2]
    if slow:  # time again: a busy machine may have caused it
        main(["upscale", *slow, *arguments])
        again = json.loads(capsys.readouterr().out)
        assert all(row["seconds"] < 2 for row in again)
    for row in rows:
        assert row["status"] == "done" or row["input"] in row["error"]
