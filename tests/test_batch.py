"""Folders of pictures: several at once, by one device or more, whatever becomes of each."""

import os
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from bench.batch import folder as measured_folder
from espan import Upscaler, batch, files
from espan.batch import work
from espan.errors import LimitError, OutputError
from tests.makers import noise


def pictures(folder, count: int) -> list[batch.Job]:
    """Jobs from folder/in into folder/big."""
    (folder / "in").mkdir()
    for i in range(count):
        files.write(folder / f"in/{i}.png", Image.fromarray(noise(4, 5, 3, seed=i)))
    return batch.plan([folder / "in"], folder / "big")


def larger(image, scale, progress):
    progress(20, 20)
    return image.resize((image.width * scale, image.height * scale))


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(work.torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(work.torch, "set_num_threads", lambda count: None)


def until(condition, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


def test_outcomes_come_in_order_whoever_is_first(tmp_path):
    jobs, calls = pictures(tmp_path, 6), []

    def slow_at_first(image, scale, progress):
        calls.append(image)
        time.sleep(0.1 if len(calls) == 1 else 0)
        return larger(image, scale, progress)

    outcomes = [*batch.run(jobs, [slow_at_first], 4, workers=3)]
    assert [one.output for one in outcomes] == [str(job.output) for job in jobs]
    assert {one.status for one in outcomes} == {"done"}
    assert {(one.width, one.height) for one in outcomes} == {(20, 16)}


def test_as_many_pictures_are_under_way_as_there_are_workers(tmp_path, many_cores):
    together = threading.Barrier(3, timeout=20)

    def meets_the_others(image, scale, progress):
        together.wait()
        return larger(image, scale, progress)

    outcomes = [*batch.run(pictures(tmp_path, 6), [meets_the_others], 4, workers=3)]
    assert {one.status for one in outcomes} == {"done"}


@pytest.mark.parametrize(("held", "at_once"), [(2 * 20 * 16, 2), (0, 1), (10**6, 4)])
def test_results_in_memory_are_few(tmp_path, monkeypatch, many_cores, held, at_once):
    monkeypatch.setattr(work, "HELD", held)
    lock, inside, most = threading.Lock(), [], []

    def counted(image, scale, progress):
        with lock:
            inside.append(image)
            most.append(len(inside))
        time.sleep(0.05)
        with lock:
            inside.remove(image)
        return larger(image, scale, progress)

    outcomes = [*batch.run(pictures(tmp_path, 12), [counted], 4, workers=4)]
    assert {one.status for one in outcomes} == {"done"}
    assert max(most) == at_once


def test_every_device_gets_pictures_and_none_gets_all(tmp_path, net, many_cores):
    devices = [Upscaler(net, device="cpu", dtype="fp32") for _ in range(3)]
    used, together = set(), threading.Barrier(3, timeout=20)

    def watched(i):
        def upscale(image, scale, progress):
            if i not in used:
                used.add(i)
                together.wait()
            return devices[i](image, scale, progress=progress)

        return upscale

    jobs = pictures(tmp_path, 6)
    assert {one.status for one in batch.run(jobs, [*map(watched, range(3))], 4, workers=3)} == {
        "done"
    }
    assert used == {0, 1, 2}
    for job in jobs:
        assert Image.open(job.output).tobytes() == devices[0](job.input).tobytes()


def test_what_a_picture_becomes_does_not_depend_on_the_workers(tmp_path, net):
    jobs = pictures(tmp_path, 5)
    made = []
    for workers in (1, 4):
        [*batch.run(jobs, [Upscaler(net)], 4, workers=workers)]
        made.append([job.output.read_bytes() for job in jobs])
    assert made[0] == made[1]


def test_cores_are_not_asked_for_more_than_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(work.torch, "get_num_threads", lambda: 3)
    asked, inside, most = [], [], []
    monkeypatch.setattr(work.torch, "set_num_threads", asked.append)

    def counted(image, scale, progress):
        inside.append(image)
        most.append(len(inside))
        time.sleep(0.02)
        inside.remove(image)
        return larger(image, scale, progress)

    jobs = pictures(tmp_path, 12)
    [*batch.run(jobs, [counted], 4, workers=6)]
    assert max(most) == 3
    assert asked == [1] * 12 + [3]  # at the end the caller's number is put back
    asked.clear()
    monkeypatch.setattr(work, "HELD", 1)
    [*batch.run(jobs, [larger], 4, workers=6)]
    assert {*asked} == {3}  # one picture at a time has them all


@pytest.mark.parametrize("error", [LimitError("little memory is free"), MemoryError()])
def test_a_picture_that_lacks_memory_beside_others_is_tried_alone(tmp_path, many_cores, error):
    inside, refused = [], []

    def hungry(image, scale, progress):
        inside.append(image)
        try:
            time.sleep(0.05)
            if len(inside) > 1:
                refused.append(image)
                raise error
            return larger(image, scale, progress)
        finally:
            inside.remove(image)

    outcomes = [*batch.run(pictures(tmp_path, 6), [hungry], 4, workers=3)]
    assert {one.status for one in outcomes} == {"done"} and refused


@pytest.mark.parametrize(
    "error", [OutputError("no space left"), LimitError("large"), MemoryError()]
)
def test_what_fails_stops_nothing(tmp_path, monkeypatch, error):
    jobs, write = pictures(tmp_path, 5), files.write

    def full(path, image):
        if path.name == "1.png":
            raise error
        return write(path, image)

    monkeypatch.setattr(files, "write", full)
    outcomes = [*batch.run(jobs, [larger], 4)]
    assert [one.status for one in outcomes] == ["done", "failed", "done", "done", "done"]
    assert outcomes[1].error == f"{jobs[1].input}: {str(error) or 'out of memory'}"


def test_a_defect_is_raised(tmp_path):
    with pytest.raises(ZeroDivisionError):
        [*batch.run(pictures(tmp_path, 4), [lambda *_, progress: 1 / 0], 4)]


def test_leaving_early_stops_what_is_under_way(tmp_path):
    before = threading.active_count()

    def endless(image, scale, progress):
        while True:
            progress(1, 2)
            time.sleep(0.001)

    jobs = pictures(tmp_path, 6)
    jobs[0].problem = "not this one"
    run = batch.run(jobs, [endless], 4, workers=3)
    assert next(run).status == "failed"
    run.close()
    assert until(lambda: threading.active_count() == before)
    assert [*(tmp_path / "big").iterdir()] == []


def test_a_file_that_goes_after_the_plan_is_named(tmp_path):
    jobs = pictures(tmp_path, 3)
    jobs[1].input.unlink()
    outcomes = [*batch.run(jobs, [larger], 4)]
    assert [one.status for one in outcomes] == ["done", "failed", "done"]
    assert outcomes[1].error == f"{jobs[1].input}: no such file or directory"


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    jobs = pictures(tmp_path, 2)
    (tmp_path / "in/closed").mkdir()
    scandir = os.scandir

    def closed(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    outcomes = [*batch.run(batch.plan([tmp_path / "in"], tmp_path / "big"), [larger], 4)]
    assert [one.status for one in outcomes] == ["done", "done", "failed"]
    assert outcomes[2].error == f"{tmp_path}/in/closed: cannot be searched: permission denied"
    assert outcomes[1].output == str(jobs[1].output)


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    pictures(tmp_path, 1)
    for name in (".hidden.png", ".thumbs/small.png"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        files.write(tmp_path / "in" / name, Image.fromarray(noise(2, 2, 3)))
    assert [job.input.name for job in batch.plan([tmp_path / "in"])] == ["0.png"]


def test_a_result_goes_to_the_picture_whose_extension_it_keeps(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.gif", "a.png"):  # by name, the one that has to change it comes first
        Image.fromarray(noise(2, 2, 3)).save(tmp_path / "in" / name)
    first, second = batch.plan([tmp_path / "in"], tmp_path / "big")
    assert first.problem == f"{tmp_path}/big/a.png is already the result of {tmp_path}/in/a.png"
    assert second.problem is None


def test_named_twice_is_one_job(tmp_path):
    (job,) = pictures(tmp_path, 1)
    twice = [job.input, tmp_path / "in/../in/0.png"]
    assert len(batch.plan(twice, tmp_path / "big")) == 1
    assert len(batch.plan([*twice, tmp_path / "in"], tmp_path / "big")) == 1


def test_names_that_are_no_text_survive(tmp_path):
    (job,) = pictures(tmp_path, 1)
    odd = os.fsdecode(b"caf\xe9 \xff.png")
    job.input.rename(job.input.with_name(odd))
    (job,) = batch.plan([tmp_path / "in"], tmp_path / "big")
    with batch.Journal("settings") as journal:
        (outcome,) = batch.run([job], [larger], 4, journal=journal)
    assert outcome.status == "done"
    assert (tmp_path / "big" / odd).is_file()
    assert batch.Journal("settings").has(job)
    assert batch.shard([job], 1, 1) == [job]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_shards_are_a_partition_that_other_files_do_not_change(tmp_path, count):
    (tmp_path / "in").mkdir()
    for i in range(60):
        (tmp_path / f"in/{i}.png").touch()
    jobs = batch.plan([tmp_path / "in"], tmp_path / "big")
    shards = [batch.shard(jobs, i + 1, count) for i in range(count)]
    assert sorted(job.input for part in shards for job in part) == [job.input for job in jobs]
    assert sum(map(len, shards)) == len(jobs) and min(map(len, shards)) >= 60 // count // 4
    for i in range(60, 90):
        (tmp_path / f"in/{i}.png").touch()
    more = batch.shard(batch.plan([tmp_path / "in"], tmp_path / "big"), 1, count)
    assert {job.input for job in shards[0]} <= {job.input for job in more}
    assert {job.input for job in more} & {job.input for job in jobs} == {
        job.input for job in shards[0]
    }


def test_the_measurement_of_a_folder_runs():
    found = measured_folder(count=3, side=32, suffix="jpg", rounds=1, more=("--jobs", "2"))
    for seconds in (found, found["processor"]):
        assert 0 < seconds["network"] < min(seconds["start"], seconds["run"])
