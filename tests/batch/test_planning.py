"""Planning of jobs: names of results, and the share of each machine."""

import os
from pathlib import Path

import pytest
from PIL import Image

from espan import batch
from espan.images import files
from tests.support.folders import FakeUpscaler, image_jobs, larger
from tests.support.makers import noise


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    jobs = image_jobs(tmp_path, 2)
    (tmp_path / "in/closed").mkdir()
    scandir = os.scandir

    def closed(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    outcomes = [
        *batch.run(batch.plan([tmp_path / "in"], tmp_path / "big"), [FakeUpscaler(larger)], 4)
    ]
    assert [one.status for one in outcomes] == ["done", "done", "failed"]
    assert outcomes[2].error == f"{tmp_path}/in/closed: cannot be searched: permission denied"
    assert outcomes[1].output == str(jobs[1].output)


def test_hidden_files_and_folders_are_skipped(tmp_path):
    image_jobs(tmp_path, 1)
    for name in (".hidden.png", ".thumbs/small.png"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        files.write(tmp_path / "in" / name, Image.fromarray(noise(2, 2, 3)))
    assert [job.input.name for job in batch.plan([tmp_path / "in"])] == ["0.png"]


def test_a_result_goes_to_the_image_whose_extension_it_keeps(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.gif", "a.png"):  # the one that has to change its extension sorts first
        Image.fromarray(noise(2, 2, 3)).save(tmp_path / "in" / name)
    first, second = batch.plan([tmp_path / "in"], tmp_path / "big")
    assert first.problem == f"{tmp_path}/big/a.png is already the result of {tmp_path}/in/a.png"
    assert second.problem is None


def test_named_twice_is_one_job(tmp_path):
    (job,) = image_jobs(tmp_path, 1)
    twice = [job.input, tmp_path / "in/../in/0.png"]
    assert len(batch.plan(twice, tmp_path / "big")) == 1
    assert len(batch.plan([*twice, tmp_path / "in"], tmp_path / "big")) == 1


def test_names_that_are_not_utf8_are_kept(tmp_path):
    (job,) = image_jobs(tmp_path, 1)
    odd = os.fsdecode(b"caf\xe9 \xff.png")
    job.input.rename(job.input.with_name(odd))
    (job,) = batch.plan([tmp_path / "in"], tmp_path / "big")
    with batch.Journal("settings") as journal:
        (outcome,) = batch.run([job], [FakeUpscaler(larger)], 4, journal=journal)
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
