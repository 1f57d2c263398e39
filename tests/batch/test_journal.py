"""`--resume`: skips finished files and repeats changed ones."""

import json
import os
import stat
from pathlib import Path

import pytest
from PIL import Image

from espan import batch
from espan.batch import journal as journals
from espan.checkpoints.weights import save
from espan.cli import main
from espan.images import files
from espan.options import UpscalerOptions
from tests.support.makers import noise, random_net


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    for i, name in enumerate(["a.png", "b.png", "deep/c.bmp"]):
        files.write(tmp_path / "in" / name, Image.fromarray(noise(4, 5, 3, seed=i)))
    return tmp_path


@pytest.fixture
def resume(folder, weights, capsys):
    """Runs `espan upscale in -o out --resume`; returns the names of files not skipped."""

    def run(*more: str, model: str = weights) -> list[str]:
        inout = [f"{folder}/in", "-o", f"{folder}/out"]
        options = ["-n", model, "--device=cpu", "--json", "--quiet", "--resume"]
        code = main(["upscale", *inout, *options, *more])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        rows = json.loads(shown.out)
        assert {row["status"] for row in rows} <= {"done", "skipped"}
        return [os.path.relpath(r["input"], folder / "in") for r in rows if r["status"] == "done"]

    return run


ALL = ["a.png", "b.png", "deep/c.bmp"]


def test_what_is_done_is_left(folder, resume):
    assert resume() == ALL
    before = {path: path.stat() for path in (folder / "out").rglob("*.*") if path.suffix}
    assert resume() == []
    assert all(path.stat().st_mtime_ns == was.st_mtime_ns for path, was in before.items())


def test_a_run_without_resume_does_all_and_notes_it(folder, resume, weights):
    for _ in range(2):
        inout = [f"{folder}/in", "-o", f"{folder}/out"]
        assert main(["upscale", "--device=cpu", *inout, "-n", weights, "-q"]) == 0
    assert len((folder / "out/.espan-journal").read_text().splitlines()) == 6
    assert resume() == []


def test_a_new_input_and_a_changed_one_are_done(folder, resume):
    resume()
    files.write(folder / "in/b.png", Image.fromarray(noise(6, 6, 3)))
    files.write(folder / "in/new.png", Image.fromarray(noise(3, 3, 3)))
    assert resume() == ["b.png", "new.png"]
    assert Image.open(folder / "out/b.png").size == (24, 24)
    os.utime(folder / "in/a.png", ns=(1, 1))
    assert resume() == ["a.png"]


def test_a_result_that_is_gone_or_changed_is_made_again(folder, resume):
    resume()
    (folder / "out/a.png").unlink()
    (folder / "out/b.png").write_bytes(b"half of it")
    assert resume() == ["a.png", "b.png"]
    assert Image.open(folder / "out/b.png").size == (20, 16)


def test_other_settings_are_done_again(folder, resume, tmp_path):
    resume()
    assert resume("--scale", "2") == ALL
    assert resume("--scale", "2") == []
    assert resume("--scale", "2", "--dtype", "fp32") == ALL
    assert resume("-f", "webp") == ALL
    # Other weights with the same file name.
    other = tmp_path / "weights/tiny.safetensors"
    save(random_net(seed=5), other)
    assert resume("--scale", "2", "--dtype", "fp32", model=str(other)) == ALL
    assert resume("--tile", "64", "--scale", "2", "--dtype", "fp32", model=str(other)) == []


def test_results_of_before_do_not_count_when_others_took_their_place(folder, resume):
    resume()
    resume("--dtype", "bf16")  # the size of c.bmp is unchanged
    assert resume() == ALL


@pytest.mark.parametrize(
    "last", [b'["a.png", "5', b"\xff\x00", b"[[1]]\n{}\nnull\n7\n", b"[" * 9999]
)
def test_a_torn_line_counts_for_nothing_and_costs_no_other(folder, resume, last):
    resume()
    path = folder / "out/.espan-journal"
    whole = path.read_bytes()
    path.write_bytes(whole + last)
    assert resume() == []
    (folder / "out/a.png").unlink()
    assert resume() == ["a.png"]
    assert resume() == []


def test_a_torn_line_is_one_image(folder, resume):
    resume()
    path = folder / "out/.espan-journal"
    path.write_bytes(path.read_bytes()[:-3])
    assert len(resume()) == 1


def test_without_its_journal_a_folder_is_done_again(folder, resume):
    resume()
    (folder / "out/.espan-journal").unlink()
    assert resume() == ALL


def test_shards_write_journals_of_their_own_and_read_all(folder, resume):
    first, second = resume("--shard", "1/2"), resume("--shard", "2/2")
    assert sorted(first + second) == ALL
    names = {path.name for path in (folder / "out").glob(".espan-journal*")}
    assert names <= {".espan-journal-1-of-2", ".espan-journal-2-of-2"} and names
    assert resume() == []


def opened(path) -> bool:
    """Whether this process has `path` open; False if unknown."""
    held = Path("/proc/self/fd")
    return held.is_dir() and any(descriptor.resolve() == path for descriptor in held.iterdir())


@pytest.mark.parametrize("how", ["folder", "write"])
def test_a_journal_that_cannot_be_written_fails_no_image(folder, resume, monkeypatch, caplog, how):
    if how == "folder":
        (folder / "out/.espan-journal").mkdir(parents=True)
    else:

        def full(*_):
            raise OSError(28, "No space")

        monkeypatch.setattr(journals.os, "write", full)
    assert resume() == ALL
    assert not opened(folder / "out/.espan-journal")  # otherwise its disk could not be unmounted
    assert len([r for r in caplog.records if "--resume will repeat this run" in r.message]) == 1
    monkeypatch.undo()
    assert resume() == ALL


def test_files_without_a_folder_of_results_have_no_journal(folder, weights, capsys):
    arguments = ["upscale", "--device=cpu", f"{folder}/in/a.png", "-n", weights, "-q"]
    assert main(arguments) == 0
    assert [*folder.rglob(".espan*")] == []
    assert main([*arguments, "--resume"]) == 2
    assert "resume: needs an output folder" in capsys.readouterr().err


def test_settings_of_built_in_networks_differ():
    assert (
        len({batch.settings_of(f"espan-x{scale}", 2.0, UpscalerOptions()) for scale in (2, 3, 4)})
        == 3
    )


def test_reading_damaged_files_is_a_setting(folder, resume):
    resume()
    assert resume("--allow-truncated") == ALL
    assert resume("--allow-truncated") == []


@pytest.mark.parametrize("name", [".espan-journal", ".espan-journal-other"])
def test_a_link_is_not_followed(folder, resume, name, caplog):
    """Neither to append to its target nor to read it."""
    resume()
    target = folder / "precious.txt"
    (folder / "out/.espan-journal").rename(target)
    before = target.read_bytes()
    (folder / "out" / name).symlink_to(target)
    assert resume() == ALL
    assert target.read_bytes() == before
    assert ("a link, not a file; --resume" in caplog.text) == (name == ".espan-journal")


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_file_is_not_waited_for(folder, resume, kind, caplog):
    resume()
    journal = folder / "out/.espan-journal"
    journal.unlink()
    if kind == "fifo":
        os.mkfifo(journal)
    elif os.geteuid() == 0:
        os.mknod(journal, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    else:
        pytest.skip("only root makes devices")
    assert resume() == ALL  # reading it would block forever
    assert f"a {'FIFO' if kind == 'fifo' else 'device'}, not a file; --resume" in caplog.text
