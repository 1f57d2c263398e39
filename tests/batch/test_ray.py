"""Folders on a Ray cluster: two workers on this machine, one of which is killed."""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from espan import DeviceError, DeviceLostError, Upscaler
from espan.batch import cluster as cluster_engine
from espan.cli import main
from espan.images import files
from espan.options import UpscalerOptions
from tests.support.folders import noisy
from tests.support.makers import noise


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def rows_of(capsys) -> list[dict]:
    """The command's JSON; Ray may print messages about ended workers before it."""
    shown = capsys.readouterr().out
    return json.loads(shown[shown.index("[\n") :])


def test_bad_files_fail_alone_and_the_run_can_be_resumed(cluster, tmp_path, net, weights, capsys):
    folder, out = noisy(tmp_path / "in", 6), tmp_path / "out"
    (folder / "bad.png").write_bytes(b"")
    options = ["-n", weights, "--device=cpu", "--dtype=fp32", "--json"]
    arguments = ["upscale", str(folder), "-o", str(out), *options]
    assert main([*arguments, "--engine", "ray"]) == 1
    rows = {Path(row["input"]).name: row for row in rows_of(capsys)}
    assert rows.pop("bad.png")["error"] == f"{folder}/bad.png: empty file"
    assert len(rows) == 6 and {row["status"] for row in rows.values()} == {"done"}
    upscaler = Upscaler(net, device="cpu", dtype="fp32")
    for path in sorted(out.glob("*.png")):
        assert Image.open(path).tobytes() == upscaler(folder / path.name).tobytes()

    files.write(folder / "bad.png", Image.fromarray(noise(3, 3, 3)))
    assert main([*arguments, "--engine", "ray", "--resume"]) == 0
    rows = {Path(row["input"]).name: row["status"] for row in rows_of(capsys)}
    assert rows.pop("bad.png") == "done" and set(rows.values()) == {"skipped"}
    assert main([*arguments, "--resume"]) == 0  # the same journal with and without Ray
    assert {row["status"] for row in rows_of(capsys)} == {"skipped"}


def test_the_image_of_a_lost_worker_is_done_again(cluster, tmp_path, net, monkeypatch):
    from espan.batch import cluster as engine
    from espan.batch import plan

    class Mortal(engine.Worker):
        def upscale(self, job, scale):
            died = Path(f"{job.input}.died")
            if job.input.name in ("1.png", "4.png") and (
                job.input.name == "4.png" or not died.exists()
            ):
                with died.open("a") as file:
                    file.write("x")
                os.kill(os.getpid(), signal.SIGKILL)
            return super().upscale(job, scale)

    monkeypatch.setattr(engine, "Worker", Mortal)
    monkeypatch.setattr(engine, "RETRIES", 1)
    folder = noisy(tmp_path / "in", 6)
    options = UpscalerOptions(device="cpu", dtype="fp32")
    jobs = plan([folder], tmp_path / "out")
    outcomes = {Path(one.input).name: one for one in engine.run(jobs, net, options, 4)}
    poison = outcomes.pop("4.png")
    assert poison.error == f"{folder}/4.png: its worker died, 2 times"
    assert (folder / "4.png.died").read_text() == "xx"
    assert (folder / "1.png.died").read_text() == "x"
    assert len(outcomes) == 5 and {one.status for one in outcomes.values()} == {"done"}
    upscaler = Upscaler(net, device="cpu", dtype="fp32")
    for one in outcomes.values():
        assert Image.open(one.output).tobytes() == upscaler(one.input).tobytes()


def test_weights_that_a_worker_cannot_load_end_the_run(cluster, tmp_path):
    from espan import WeightsError
    from espan.batch import cluster as engine
    from espan.batch import plan

    jobs = plan([noisy(tmp_path / "in", 2)], tmp_path / "out")
    options = UpscalerOptions(device="cpu")
    with pytest.raises(WeightsError, match="no such weights file"):
        [*engine.run(jobs, "/nowhere/net.safetensors", options, 4)]


def test_a_worker_whose_gpu_is_lost_ends_its_process(monkeypatch):
    def lost(*_):
        raise DeviceLostError("cuda:0")

    monkeypatch.setattr(cluster_engine, "run_job", lost)
    monkeypatch.setattr(cluster_engine.os, "_exit", sys.exit)
    worker = cluster_engine.Worker("espan-x4", UpscalerOptions())
    worker.upscaler = lost
    with pytest.raises(SystemExit):
        worker.upscale(None, 4)


def test_a_worker_that_dies_as_it_starts_is_named(monkeypatch):
    class Ray:
        """A fake Ray whose only actor is dead."""

        exceptions = SimpleNamespace(RayActorError=ConnectionError, RayTaskError=ValueError)

        def wait(self, tasks, timeout):
            return tasks[:1], tasks[1:]

        def get(self, task):
            raise ConnectionError

        def cluster_resources(self):
            return {"CPU": 2}

    actor = SimpleNamespace(ready=SimpleNamespace(remote=lambda: "task"))
    with pytest.raises(DeviceError, match="a worker died at its start"):
        [*cluster_engine._distribute(Ray(), [actor], [None], 4, None)]


def test_without_ray_one_line_says_what_to_install(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    folder = noisy(tmp_path / "in", 1)
    assert main(["upscale", "--device=cpu", str(folder), "-n", weights, "--engine", "ray"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "espan: --engine ray needs ray: pip install 'espan[ray]'\n"
    assert not shown.out
