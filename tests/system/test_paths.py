"""Names that no file can have, and names of FIFOs, devices, sockets and broken links."""

import os
import socket
from pathlib import Path

import pytest

from espan import InputError, OutputError
from espan.system import paths
from tests.support.nobody import as_nobody

LONG, NUL, STRANGE = "w" * 300, "a\0b", "\ud800.png"
NEVER = [LONG, NUL, STRANGE, "a/" * 5000, "a" * 255 + "/b"]


@pytest.mark.parametrize("name", NEVER, ids=lambda name: repr(name)[:12])
def test_names_that_no_file_can_have(tmp_path, name):
    path = tmp_path / name
    assert not any(check(path) for check in (paths.exists, paths.is_file, paths.is_folder))
    assert paths.why_no_file(path) and "\n" not in paths.why_no_file(path)
    assert paths.resolved(path).is_absolute()
    assert not paths.names_folder(path)


def test_the_reason_a_name_is_refused_for(tmp_path):
    assert paths.why_no_result(tmp_path / LONG) == "File name too long"
    assert paths.why_no_file(tmp_path / LONG) == "file name too long"
    for name in (NUL, STRANGE):
        assert paths.why_no_result(tmp_path / name) == paths.why_no_file(tmp_path / name)
        assert paths.why_no_file(tmp_path / name) == "no file can have this name"
    assert paths.why_no_result(tmp_path) == "is a folder"
    assert paths.why_no_result(tmp_path / "new") is None


def not_files(folder: Path) -> dict[str, str]:
    """{name in `folder` that is not a file: reason}."""
    os.mkfifo(folder / "fifo.png")
    (folder / "link.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "null.png").symlink_to("/dev/null")
    (folder / "pipe.png").symlink_to("fifo.png")
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(folder)  # paths of sockets must be short
        made.bind("socket.png")
        os.chdir(here)
    return {
        "fifo.png": "a FIFO, not a file",
        "link.png": "a broken link",
        "loop.png": "too many levels of symbolic links",
        "null.png": "a device, not a file",
        "pipe.png": "a FIFO, not a file",
        "socket.png": "a socket, not a file",
    }


def test_the_reason_names_the_kind_of_non_file(tmp_path):
    for name, reason in not_files(tmp_path).items():
        assert paths.why_no_file(tmp_path / name) == reason
        assert paths.exists(tmp_path / name) and not paths.is_file(tmp_path / name)
        assert paths.why_no_result(tmp_path / name) is None  # a result may replace it
    assert paths.why_no_file(tmp_path) == "is a directory"
    assert paths.why_no_file(tmp_path / "none") == paths.NOTHING


@pytest.mark.parametrize("find", [paths.listing, paths.below])
def test_listings_include_non_files_with_a_reason(tmp_path, find):
    reasons = not_files(tmp_path)
    (tmp_path / "a.PNG").touch()
    (tmp_path / "b.txt").touch()
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "to-folder.png").symlink_to("folder.png")
    expected = {"a.PNG": None, **reasons}
    assert {each.path.name: each.problem for each in find(tmp_path, [".png"])} == expected


def test_below_skips_hidden_excluded_and_linked_folders(tmp_path):
    for name in ("a/x.png", "b/deep/y.png", ".git/z.png", "left/out.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "a/round").symlink_to(tmp_path)
    found = paths.below(tmp_path, [".png"], lambda folder: folder.name != "left")
    assert [str(each.path.relative_to(tmp_path)) for each in found] == ["a/x.png", "b/deep/y.png"]
    assert [each.name for each in paths.folders(tmp_path)] == ["a", "b", "left"]


def test_folders_deeper_than_pythons_stack(tmp_path, monkeypatch):
    deep = 1200
    monkeypatch.chdir(tmp_path)
    for _ in range(deep):
        Path("d").mkdir()
        os.chdir("d")
    Path("a.png").touch()
    found = paths.below(tmp_path, [".png"])
    Path("a.png").unlink()
    for _ in range(deep):  # pytest removes folders recursively, which fails at this depth
        os.chdir("..")
        Path("d").rmdir()
    assert [(each.path.name, each.problem) for each in found] == [("a.png", None)]


def test_a_folder_that_may_be_listed_but_not_entered(tmp_path, capfd, monkeypatch):
    shut = tmp_path / "shut"
    shut.mkdir()
    (shut / "a.png").touch()
    (tmp_path / "b.png").touch()
    shut.chmod(0o444)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # other users cannot enter pytest's folders

    def look() -> int:
        found = paths.below(Path(), [".png"])
        assert [str(each.path) for each in found] == ["b.png", "shut/a.png"]
        assert [each.problem for each in found] == [None, "permission denied"]
        assert not paths.is_file(shut / "a.png")
        return 0

    assert as_nobody(look) == 0, capfd.readouterr().err


@pytest.mark.parametrize(
    "name", [3, None, b"a.png", ["a"], object()], ids=lambda name: type(name).__name__
)
def test_paths_of_other_types_are_refused(name):
    with pytest.raises(InputError, match="thing: expected a path, got "):
        paths.as_path(name, "thing", OutputError)


def test_an_empty_name_is_not_the_current_folder():
    with pytest.raises(OutputError, match="thing: the name is empty"):
        paths.as_path("", "thing", OutputError)
    assert paths.as_path(Path("a"), "thing") == Path("a")
