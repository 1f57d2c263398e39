"""Folders of pictures: results are written while the next picture is computed."""

import threading
import time

import pytest
from PIL import Image

from espan import batch, files
from espan.errors import OutputError
from tests.makers import noise


def pictures(folder, count: int) -> list[batch.Job]:
    jobs = []
    for i in range(count):
        path = files.write(folder / f"{i}.png", Image.fromarray(noise(4, 5, 3, seed=i)))
        jobs.append(batch.Job(path, folder / "big" / f"{i}.png"))
    return jobs


def appears(path, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.001)
    return path.exists()


def test_a_result_is_written_while_the_next_is_computed(tmp_path):
    jobs = pictures(tmp_path, 3)
    seen = []

    def upscaler(image, scale, progress):
        # The one before is there, though nobody has asked for its outcome yet.
        seen.append(not seen or appears(jobs[len(seen) - 1].output))
        progress(20, 20)
        return image.resize((20, 16))

    outcomes = [*batch.run(jobs, upscaler, 4)]
    assert seen == [True] * 3
    assert [one.output for one in outcomes] == [str(job.output) for job in jobs]
    assert {one.status for one in outcomes} == {"done"}


@pytest.mark.parametrize(("held", "at_once"), [(20 * 16, 2), (0, 1), (10**6, batch.WRITERS)])
def test_results_that_wait_to_be_written_are_few(tmp_path, monkeypatch, held, at_once):
    monkeypatch.setattr(batch, "HELD", held)
    jobs, lock, waiting, most = pictures(tmp_path, 8), threading.Lock(), set(), []

    def slow(path, image):
        with lock:
            waiting.add(path)
            most.append(len(waiting))

        def finish():
            time.sleep(0.05)
            with lock:
                waiting.remove(path)

        return finish

    monkeypatch.setattr(files, "writer", slow)
    outcomes = [*batch.run(jobs, lambda image, scale, progress: image.resize((20, 16)), 4)]
    assert [one.input for one in outcomes] == [str(job.input) for job in jobs]
    # The one that was just computed, and those before it.
    assert max(most) == at_once


def test_what_fails_in_writing_stops_nothing(tmp_path, monkeypatch):
    jobs = pictures(tmp_path, 3)
    writer = files.writer

    def full(path, image):
        def finish():
            raise OutputError(f"{path}: no space left on device")

        return finish if path.name == "1.png" else writer(path, image)

    monkeypatch.setattr(files, "writer", full)
    outcomes = [*batch.run(jobs, lambda image, scale, progress: image, 1)]
    assert [one.status for one in outcomes] == ["done", "failed", "done"]
    assert "no space left on device" in outcomes[1].error


def test_a_defect_in_writing_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "writer", lambda path, image: lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        [*batch.run(pictures(tmp_path, 2), lambda image, scale, progress: image, 1)]
