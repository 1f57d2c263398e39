"""Atomic results: full disks, read-only folders, links, leftovers, several writers."""

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from espan import OutputError
from espan.cli import main
from espan.images import files
from espan.system.atomic import remove_leftovers, whole_file
from tests.support.makers import noise

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks and links")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        files.write(tmp_path / f"in/{i}.png", Image.fromarray(noise(20, 20, 3, seed=i)))
    return tmp_path


@pytest.fixture
def upscale(folder, weights):
    def run(*more: str) -> int:
        arguments = ["-o", str(folder / "out"), "-n", weights, "--dtype", "fp32", *more]
        return main(["upscale", "--device=cpu", str(folder / "in"), *arguments])

    return run


@contextmanager
def mounted(path: Path, options: str):
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"mount: {error}")
    if done.returncode:
        pytest.skip(f"no permission to mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_full_disk(folder, upscale, capsys):
    with mounted(folder / "out", "size=40k"):  # a result has 19 KB; the journal needs a page
        assert upscale() == 1
        said = capsys.readouterr().err
        assert "could not be written: No space left on device" in said
        whole = [*(folder / "out").glob("*.png")]
        assert 0 < len(whole) < 4 and f"{4 - len(whole)} of 4 failed" in said
        assert all(Image.open(path).size == (80, 80) and Image.open(path).load() for path in whole)
        assert [*(folder / "out").glob(".espan-*.part")] == []


@posix
def test_a_limit_on_the_size_of_files(folder, weights):
    """Simulates a disk quota, in a separate process and without permission to mount."""
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
from espan.cli import main
arguments = ["-n", {weights!r}, "--dtype", "fp32", "-o", {str(folder / "out")!r}]
sys.exit(main(["upscale", "--device=cpu", {str(folder / "in")!r}, *arguments]))
"""
    (folder / "out").mkdir()
    (folder / "out/2.png").write_bytes(b"an old result")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("could not be written: File too large") == 4
    assert [p.name for p in (folder / "out").iterdir()] == ["2.png"]
    assert (folder / "out/2.png").read_bytes() == b"an old result"


def test_read_only_disk(folder, upscale, capsys):
    with mounted(folder / "out", "ro"):
        assert upscale() == 1
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.endswith("out: not writable")]) == 4


def test_folder_without_write_permission(folder, upscale, monkeypatch, capsys):
    (folder / "out").mkdir()
    if os.geteuid() == 0:  # root may write everywhere
        access = os.access
        monkeypatch.setattr(os, "access", lambda p, mode: mode != os.W_OK and access(p, mode))
    else:
        (folder / "out").chmod(0o555)
    assert upscale() == 1
    assert capsys.readouterr().err.count("out: not writable") == 4
    (folder / "out").chmod(0o755)
    assert [*(folder / "out").iterdir()] == []


def test_a_folder_in_the_place_of_a_result(folder, upscale, capsys):
    (folder / "out/1.png").mkdir(parents=True)
    assert upscale() == 1
    assert f"{folder}/in/1.png: {folder}/out/1.png: is a folder" in capsys.readouterr().err
    assert sorted(p.name for p in (folder / "out").glob("[0-9]*")) == [f"{i}.png" for i in range(4)]
    assert (folder / "out/1.png").is_dir()


def test_a_folder_that_takes_the_place_while_a_result_is_written(tmp_path):
    path = tmp_path / "a.png"
    reason = r"a\.png: could not be written: Is a directory"
    with pytest.raises(OutputError, match=reason), whole_file(path) as temporary:
        temporary.write_bytes(b"new")
        path.mkdir()
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_in_the_place_of_a_folder(folder, upscale, capsys):
    (folder / "out").write_bytes(b"mine")
    assert upscale() == 1
    assert capsys.readouterr().err.count("out: could not be created: File exists") == 4
    assert (folder / "out").read_bytes() == b"mine"


@posix
@pytest.mark.parametrize("target", ["elsewhere.png", "nowhere.png"])
def test_a_link_in_the_place_of_a_result_is_replaced_not_followed(folder, upscale, target):
    (folder / "out").mkdir()
    (folder / "elsewhere.png").write_bytes(b"mine")
    (folder / "out/1.png").symlink_to(folder / target)
    assert upscale() == 0
    assert not (folder / "out/1.png").is_symlink()
    assert Image.open(folder / "out/1.png").size == (80, 80)
    assert (folder / "elsewhere.png").read_bytes() == b"mine"
    assert not (folder / "nowhere.png").exists()


@posix
def test_a_linked_folder_of_results_is_written(folder, upscale):
    (folder / "disk").mkdir()
    (folder / "out").symlink_to(folder / "disk")
    assert upscale() == 0
    assert len([*(folder / "disk").glob("*.png")]) == 4


@posix
def test_leftovers_of_dead_processes_are_removed_and_live_ones_stay(tmp_path):
    dead = tmp_path / ".espan-0123.part"
    dead.write_bytes(b"half")
    (tmp_path / ".espan-journal").write_bytes(b"")
    with whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_bytes(b"whole")
        assert remove_leftovers(tmp_path) == 1
        assert temporary.exists() and not dead.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".espan-journal", "a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"whole"


@posix
def test_leftovers_are_never_taken_from_a_writer(tmp_path):
    """Writers start while another thread repeatedly removes leftovers."""
    done, failures = threading.Event(), []

    def write(name: str) -> None:
        try:
            for i in range(200):
                with whole_file(tmp_path / name) as temporary:
                    temporary.write_text(str(i))
        except OutputError as error:
            failures.append(error)

    def clean() -> None:
        while not done.is_set():
            remove_leftovers(tmp_path)

    writers = [threading.Thread(target=write, args=(f"{i}.txt",)) for i in range(3)]
    cleaner = threading.Thread(target=clean)
    for thread in (*writers, cleaner):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    cleaner.join()
    assert failures == []
    assert {p.read_text() for p in tmp_path.iterdir()} == {"199"}


def test_file_and_folder_are_synced(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.fstat(fd).st_ino), fsync(fd)))
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (calls.append("renamed"), replace(self, to))
    )
    with whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_bytes(b"whole")
    assert calls == [(tmp_path / "a.txt").stat().st_ino, "renamed", tmp_path.stat().st_ino]


def test_two_processes_write_one_folder(folder, weights):
    command = [sys.executable, "-m", "espan.cli", "upscale", "--device=cpu", str(folder / "in")]
    command += ["-o", str(folder / "out"), "-n", weights, "--dtype", "fp32", "--quiet"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(each.communicate()[1], each.returncode) for each in both] == [("", 0)] * 2
    assert main([*command[3:], "-o", str(folder / "alone")]) == 0
    for path in (folder / "alone").glob("*.png"):
        assert (folder / "out" / path.name).read_bytes() == path.read_bytes()
    assert [*(folder / "out").glob(".espan-*.part")] == []
