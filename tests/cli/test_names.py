"""Invalid file names, FIFOs and broken links: one line each, and other files are processed."""

import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from espan.cli import main
from espan.images import files
from tests.support.makers import TINY_RUN, as_yaml, noise
from tests.support.nobody import as_nobody

LONG = "w" * 300


@pytest.fixture(autouse=True)
def no_waiting():
    """Opening a FIFO blocks forever; this makes the test fail instead."""

    def waited(*_) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def rows(capsys) -> dict[str, dict]:
    """{name of input: its row of --json}."""
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return {Path(row["input"]).name: row for row in json.loads(shown.out)}


def test_a_result_name_that_is_too_long_does_not_stop_the_others(tmp_path, upscale, capsys):
    (tmp_path / "in").mkdir()
    long = "m" + 250 * "x" + ".jpg"
    for name in (*(f"{i}.jpg" for i in range(5)), long):
        files.write(tmp_path / "in" / name, Image.fromarray(noise(4, 5, 3)))
    code = upscale(tmp_path / "in", "-o", tmp_path / "out", "-f", "avif", "--json", "--quiet")
    done = rows(capsys)
    assert code == 1
    assert [row["status"] for name, row in done.items() if name != long] == ["done"] * 5
    assert done[long]["error"].endswith(".avif: File name too long")
    assert upscale(tmp_path / "in", "-o", tmp_path / "out", "-f", "avif", "--skip-existing") == 1


def test_a_folder_without_permission_does_not_stop_the_others(
    tmp_path, upscale, monkeypatch, capfd
):
    shut = tmp_path / "in/shut"
    shut.mkdir(parents=True)
    for name in ("in/a.png", "in/shut/b.png", "in/shut/c.png"):
        files.write(tmp_path / name, Image.fromarray(noise(4, 5, 3)))
    (tmp_path / "out").mkdir()
    assert (
        upscale("-q", tmp_path / "in/a.png", "-o", tmp_path / "warm.png") == 0
    )  # import everything first
    capfd.readouterr()
    monkeypatch.chdir(tmp_path)  # other users cannot enter pytest's folders
    for folder, mode in ((tmp_path, 0o755), (tmp_path / "out", 0o777), (shut, 0o444)):
        folder.chmod(mode)
    weights = str((tmp_path / "weights/tiny.safetensors").relative_to(tmp_path))
    arguments = ["upscale", "in", "-o", "out", "-n", weights, "--device=cpu", "-q"]
    assert as_nobody(lambda: main(arguments)) == 1
    shut.chmod(0o755)
    errors = capfd.readouterr().err.splitlines()
    assert errors == [
        "espan: in/shut/b.png: permission denied",
        "espan: in/shut/c.png: permission denied",
        "espan: 2 of 3 failed",
    ]
    assert (tmp_path / "out/a.png").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ["upscale", LONG, "--device=cpu"],
        ["upscale", "IMAGE", "-n", LONG, "--device=cpu"],
        ["upscale", "IMAGE", "-o", LONG, "--device=cpu"],
        ["upscale", "IMAGE", "-o", f"{LONG}.png", "--device=cpu"],
        ["upscale", "IMAGE", "-o", f"{LONG}/", "--device=cpu"],
        ["upscale", "IMAGE", "-o", f"{LONG}.png", "--device=cpu", "--skip-existing"],
        ["eval", "--data", LONG, "--bicubic"],
        ["eval", "--data", ".", "-n", LONG],
        ["prepare", LONG, "-o", "p"],
        ["prepare", "in", "-o", LONG],
        ["export", LONG, "-o", "a.onnx"],
        ["export", "espan-x2", "-o", f"{LONG}.safetensors"],
        ["compare", LONG, "-o", "a.html"],
        ["compare", "IMAGE", "-o", f"{LONG}.html"],
        ["train", LONG],
    ],
    ids=lambda arguments: " ".join(each[:9] for each in arguments[:4]),
)
def test_a_name_that_is_too_long_is_a_one_line_error(images, monkeypatch, capsys, arguments):
    monkeypatch.chdir(images.parent)
    given = [str(images / "a.png") if each == "IMAGE" else each for each in arguments]
    assert main(given) in (1, 2)
    errors = capsys.readouterr().err.strip()
    assert errors.startswith("espan: ") and "\n" not in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["upscale", ""],
        ["upscale", "-i", "", "in"],
        ["upscale", "in", "-o", ""],
        ["upscale", "in", "-n", ""],
        ["eval", "--data", "", "--device", "cpu"],
        ["eval", "--data", "in", "-n", ""],
        ["prepare", "", "-o", "p"],
        ["prepare", "in", "-o", ""],
        ["export", "", "-o", "a.onnx"],
        ["export", "espan-x2", "-o", ""],
        ["compare", "", "-o", "a.html"],
        ["compare", "in/a.png", "", "-o", "a.html"],
        ["compare", "in/a.png", "-o", ""],
        ["compare", "in/a.png", "-o", "a.html", "--sheet", ""],
        ["compare", "in/a.png", "-o", "a.html", "-n", ""],
        ["train", ""],
        ["train", "c.yaml", "data=''", "out=run"],
        ["train", "c.yaml", "data=in", "out=''"],
    ],
    ids=" ".join,
)
def test_an_empty_name_is_a_usage_error(images, monkeypatch, capsys, arguments):
    monkeypatch.chdir(images.parent)
    (images.parent / "c.yaml").write_text("{}")
    before = sorted(images.parent.rglob("*"))
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("espan: ") and errors.count("\n") == 1
    assert sorted(images.parent.rglob("*")) == before


@pytest.fixture
def mixed(tmp_path):
    """An image, a FIFO and a broken link, all with image extensions."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    files.write(folder / "a.png", Image.fromarray(noise(48, 48, 3)))
    os.mkfifo(folder / "fifo.png")
    (folder / "link.png").symlink_to("nowhere.png")
    return folder


def reasons(mixed) -> set[str]:
    return {f"{mixed}/fifo.png: a FIFO, not a file", f"{mixed}/link.png: a broken link"}


def test_upscale_of_fifos_and_broken_links(mixed, upscale, capsys):
    assert upscale(mixed, "-o", mixed.parent / "out", "--json", "--quiet") == 1
    done = rows(capsys)
    assert {row["error"] for row in done.values()} == {None} | reasons(mixed)
    assert upscale(mixed / "fifo.png") == 1
    assert upscale(mixed / "link.png") == 1


def test_eval_of_fifos_and_broken_links(mixed, capsys):
    assert main(["eval", "--data", str(mixed), "--bicubic", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {row["error"] for row in found} == {None} | reasons(mixed)


def test_eval_with_a_broken_link_among_lr_images(mixed, capsys):
    (mixed / "LRx4").mkdir()
    (mixed / "HR").mkdir()
    (mixed / "a.png").rename(mixed / "HR/a.png")
    (mixed / "LRx4/a.png").symlink_to("nowhere")
    assert main(["eval", "--data", str(mixed), "--bicubic", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row["error"].endswith(f"{mixed}/LRx4/a.png: a broken link")


def test_prepare_and_train_with_fifos_and_broken_links(mixed, tmp_path, capsys, caplog):
    assert main(["prepare", str(mixed), "-o", str(tmp_path / "prepared")]) == 0
    assert {line for line in capsys.readouterr().err.splitlines() if "mixed" in line} == {
        f"espan: {reason}" for reason in reasons(mixed)
    }
    config = as_yaml(
        tmp_path / "c.yaml", data=str(mixed), out=str(tmp_path / "run"), **TINY_RUN | {"steps": 1}
    )
    assert main(["train", config]) == 0
    assert "2 files left out of training" in caplog.text


@pytest.mark.parametrize("name", ["fifo.mp4", "link.mp4"])
def test_a_video_that_is_a_fifo_or_a_broken_link(tmp_path, upscale, capsys, name):
    pytest.importorskip("av")
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "link.mp4").symlink_to("nowhere.mp4")
    assert upscale(tmp_path / name) == 1
    assert f"espan: {tmp_path}/{name}: a " in capsys.readouterr().err
