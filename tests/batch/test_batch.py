"""Folders of images: several in parallel, on one or more devices, independent of each other."""

import threading
import time

import pytest
import torch
from PIL import Image

from bench.batch import folder as measured_folder
from espan import Upscaler, batch
from espan.batch import work
from espan.errors import LimitError, OutputError
from espan.images import files
from tests.support.folders import FakeUpscaler, image_jobs, larger


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(work.torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(work.torch, "set_num_threads", lambda count: None)


def until(condition, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


def test_outcomes_come_in_order_whoever_is_first(tmp_path):
    jobs, calls = image_jobs(tmp_path, 6), []

    def slow_at_first(image, scale, progress):
        calls.append(image)
        time.sleep(0.1 if len(calls) == 1 else 0)
        return larger(image, scale, progress)

    outcomes = [*batch.run(jobs, [FakeUpscaler(slow_at_first)], 4, workers=3)]
    assert [one.output for one in outcomes] == [str(job.output) for job in jobs]
    assert {one.status for one in outcomes} == {"done"}
    assert {(one.width, one.height) for one in outcomes} == {(20, 16)}


def test_as_many_images_are_under_way_as_there_are_workers(tmp_path, many_cores):
    together = threading.Barrier(3, timeout=60)

    def meets_the_others(image, scale, progress):
        together.wait()
        return larger(image, scale, progress)

    outcomes = [*batch.run(image_jobs(tmp_path, 6), [FakeUpscaler(meets_the_others)], 4, workers=3)]
    assert {one.status for one in outcomes} == {"done"}


@pytest.mark.parametrize(
    ("cores", "held", "at_once"), [(2, 20 * 16, 2), (2, 20 * 16 - 1, 1), (8, 0, 1), (8, 20 * 16, 4)]
)
def test_results_in_memory_are_few(tmp_path, monkeypatch, many_cores, cores, held, at_once):
    monkeypatch.setattr(work.torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(work, "SMALL", held)
    lock, inside, most = threading.Lock(), [], []

    def counted(image, scale, progress):
        with lock:
            inside.append(image)
            most.append(len(inside))
        until(lambda: max(most) >= at_once)
        time.sleep(0.02)  # one too many would come now
        with lock:
            inside.remove(image)
        return larger(image, scale, progress)

    outcomes = [*batch.run(image_jobs(tmp_path, 12), [FakeUpscaler(counted)], 4, workers=4)]
    assert {one.status for one in outcomes} == {"done"}
    assert max(most) == at_once


def test_results_in_memory_are_as_many_as_it_has_room_for(tmp_path, monkeypatch, many_cores):
    monkeypatch.setattr(work, "SMALL", 20 * 16)
    for free, most in ((None, 2), (0, 2), (5 * 20 * 16 * work.BYTES_PER_PIXEL, 5), (10**12, 8)):
        monkeypatch.setattr(work.memory, "available", lambda free=free: free)
        pool = work.WorkerPool([FakeUpscaler(larger)], 4, 1, None, None, None)
        assert pool.most == most * 20 * 16
        pool.close()


def test_every_device_gets_images_and_none_gets_all(tmp_path, net, many_cores):
    devices = [Upscaler(net, device="cpu", dtype="fp32") for _ in range(3)]
    used, together = set(), threading.Barrier(3, timeout=60)

    def watched(i):
        def upscale(image, scale, progress):
            if i not in used:
                used.add(i)
                together.wait()
            return devices[i](image, scale, progress=progress)

        return FakeUpscaler(upscale)

    jobs = image_jobs(tmp_path, 6)
    assert {one.status for one in batch.run(jobs, [*map(watched, range(3))], 4, workers=3)} == {
        "done"
    }
    assert used == {0, 1, 2}
    for job in jobs:
        assert Image.open(job.output).tobytes() == devices[0](job.input).tobytes()


def test_what_an_image_becomes_does_not_depend_on_the_workers(tmp_path, net):
    jobs = image_jobs(tmp_path, 5)
    made = []
    for workers in (1, 4):
        [*batch.run(jobs, [Upscaler(net, device="cpu")], 4, workers=workers)]
        made.append([job.output.read_bytes() for job in jobs])
    assert made[0] == made[1]


def test_cores_are_not_asked_for_more_than_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(work.torch, "get_num_threads", lambda: 3)
    asked, inside, most = [], [], []
    monkeypatch.setattr(work.torch, "set_num_threads", asked.append)

    def counted(image, scale, progress):
        inside.append(image)
        most.append(len(inside))
        until(lambda: max(most) >= 3)
        time.sleep(0.02)  # one too many would come now
        inside.remove(image)
        return larger(image, scale, progress)

    jobs = image_jobs(tmp_path, 12)
    [*batch.run(jobs, [FakeUpscaler(counted)], 4, workers=6)]
    assert max(most) == 3
    # Set by the workers, by the thread for large results, and restored at the end.
    assert sorted(asked[:-1]) == [1] * 6 + [3] and asked[-1] == 3


def test_small_results_are_made_by_each_worker_with_its_share_of_cores(tmp_path):
    share, seen = max(1, torch.get_num_threads() // 8), []

    def watched(image, scale, progress):
        seen.append(torch.get_num_threads())
        return larger(image, scale, progress)

    for turn in range(5):
        (tmp_path / str(turn)).mkdir()
        [*batch.run(image_jobs(tmp_path / str(turn), 8), [FakeUpscaler(watched)], 4, workers=8)]
    assert {*seen} == {share}


@pytest.mark.parametrize("workers", [1, 4])
def test_large_results_are_made_by_one_thread_with_all_cores(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(work, "SMALL", 20 * 16 - 1)
    cores, seen = torch.get_num_threads(), []

    def watched(image, scale, progress):
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return larger(image, scale, progress)

    jobs = image_jobs(tmp_path, 8)
    assert {one.status for one in batch.run(jobs, [FakeUpscaler(watched)], 4, workers=workers)} == {
        "done"
    }
    assert len(seen) == 8 and len({*seen}) == 1 and seen[0][1] == cores
    assert torch.get_num_threads() == cores


def test_tiles_done_again_are_counted_for_large_results_too(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "SMALL", 0)

    class Overflowing(FakeUpscaler):
        def __call__(self, image, scale, *, progress):
            self.redone_here += 2
            return super().__call__(image, scale, progress=progress)

    upscaler = Overflowing(larger)
    outcomes = [*batch.run(image_jobs(tmp_path, 3), [upscaler], 4, workers=3)]
    assert [one.redone for one in outcomes] == [2, 2, 2]


@pytest.mark.parametrize("error", [LimitError("little memory is free"), MemoryError()])
def test_an_image_that_lacks_memory_beside_others_is_tried_alone(tmp_path, many_cores, error):
    inside, refused = [], []

    def hungry(image, scale, progress):
        inside.append(image)
        try:
            until(lambda: refused or len(inside) > 1)
            if len(inside) > 1:
                refused.append(image)
                raise error
            return larger(image, scale, progress)
        finally:
            inside.remove(image)

    outcomes = [*batch.run(image_jobs(tmp_path, 6), [FakeUpscaler(hungry)], 4, workers=3)]
    assert {one.status for one in outcomes} == {"done"} and refused


@pytest.mark.parametrize(
    "error", [OutputError("no space left"), LimitError("large"), MemoryError()]
)
def test_what_fails_stops_nothing(tmp_path, monkeypatch, error):
    jobs, write = image_jobs(tmp_path, 5), files.write

    def full(path, image):
        if path.name == "1.png":
            raise error
        return write(path, image)

    monkeypatch.setattr(files, "write", full)
    outcomes = [*batch.run(jobs, [FakeUpscaler(larger)], 4)]
    assert [one.status for one in outcomes] == ["done", "failed", "done", "done", "done"]
    assert outcomes[1].error == f"{jobs[1].input}: {str(error) or 'out of memory'}"


def test_a_defect_is_raised(tmp_path):
    with pytest.raises(ZeroDivisionError):
        [*batch.run(image_jobs(tmp_path, 4), [FakeUpscaler(lambda *_: 1 / 0)], 4)]


def test_leaving_early_stops_what_is_under_way(tmp_path):
    before = threading.active_count()

    def endless(image, scale, progress):
        while True:
            progress(1, 2)
            time.sleep(0.001)

    jobs = image_jobs(tmp_path, 6)
    jobs[0].problem = "not this one"
    run = batch.run(jobs, [FakeUpscaler(endless)], 4, workers=3)
    assert next(run).status == "failed"
    run.close()
    assert until(lambda: threading.active_count() == before)
    assert [*(tmp_path / "big").iterdir()] == []


def test_a_file_that_goes_after_the_plan_is_named(tmp_path):
    jobs = image_jobs(tmp_path, 3)
    jobs[1].input.unlink()
    outcomes = [*batch.run(jobs, [FakeUpscaler(larger)], 4)]
    assert [one.status for one in outcomes] == ["done", "failed", "done"]
    assert outcomes[1].error == f"{jobs[1].input}: no such file or directory"


def test_the_measurement_of_a_folder_runs():
    found = measured_folder(3, 32, "jpg", rounds=1, device="cpu", more=("--jobs", "2"))
    for seconds in (found, found["processor"]):
        assert 0 < seconds["network"] < min(seconds["start"], seconds["run"])
