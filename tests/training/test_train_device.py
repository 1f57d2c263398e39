"""Training on a device: all kinds of stages and precisions, and moves between device and CPU."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import espan
from espan import ESPAN
from espan.images import files
from espan.training import loop
from espan.training.config import TrainConfig, read_config
from espan.training.loop import train
from espan.training.transfer import transfer_weights
from tests.support.make_believe_device import DEVICE, make_believe
from tests.support.makers import TINY_RUN, noise

SMOKE = Path(__file__).parents[2] / "configs/smoke.yaml"
# Both optimizers, branches, a student, all terms of the loss; two stages.
METHOD = TINY_RUN | {
    "blocks": 2,
    "last_convs": 1,
    "rep": "espan",
    "student": 1,
    "dct": 0.5,
    "highpass": 0.5,
    "mse": 0.5,
    "steps": 2,
    "every": 1,
    "keep": 9,
    "stages": [{"scale": 2}, {"name": "second", "rep": "ecb", "last_convs": 0, "student": None}],
}


def trained(config: TrainConfig, device: str) -> Path:
    """The folder of a run on the CPU or on the make-believe device."""
    if device == "cpu":
        return train(replace(config, device="cpu")).parent
    with make_believe():
        return train(replace(config, device=str(DEVICE))).parent


def assert_alike(ours: Path, theirs: Path, names: list[str], atol: float = 1e-4) -> None:
    for name in names:
        nets = [
            espan.load(folder / f"{name}.safetensors").state_dict() for folder in (ours, theirs)
        ]
        torch.testing.assert_close(*nets, rtol=1e-3, atol=atol)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> dict[str, Path]:
    """configs/smoke.yaml with a few steps per stage, on the CPU and the make-believe device."""
    folder = tmp_path_factory.mktemp("smoke")
    (folder / "sets/HR").mkdir(parents=True)
    files.write(folder / "sets/HR/a.png", Image.fromarray(noise(24, 36, 3)))
    overrides = ["data=synthetic", "steps=2", "every=2", "batch=2", "patch=12", "warmup=0"]
    overrides += ["precision=fp32", f"validate={folder / 'sets'}"]
    runs = {}
    for device in ("cpu", "there"):
        config = read_config(SMOKE, [*overrides, f"out={folder / device}"])
        runs[device] = trained(config, device)
    return runs


def test_make_believe_device_trains_every_stage_of_smoke_as_the_cpu_does(smoke):
    rows = {
        device: [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for device, run in smoke.items()
    }
    stages = [stage["name"] for stage in read_config(SMOKE).stages]
    assert [row["stage"] for row in rows["there"]] == stages
    for ours, theirs in zip(rows["there"], rows["cpu"], strict=True):
        assert ours.keys() == theirs.keys() and {"dct", "highpass", "sets psnr_y"} <= ours.keys()
        measured = ours.keys() - {"steps_per_second", "images_per_second", "data_wait_ms"}
        for key in measured - {"stage"}:
            # A cosine near 0 is the difference of far larger numbers.
            near = {"abs": 5e-3} if key.endswith("cosine") else {"rel": 5e-3}
            assert ours[key] == pytest.approx(theirs[key], **near), key
    assert_alike(smoke["there"], smoke["cpu"], stages[:1])
    # Rounding errors grow with each step: Adam moves weights by its rate even for tiny gradients.
    assert_alike(smoke["there"], smoke["cpu"], [*stages, "best"], atol=0.01)


def test_make_believe_device_leaves_images_and_curves(smoke):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = events.EventAccumulator(str(smoke["there"] / "tensorboard"))
    tags = board.Reload().Tags()
    assert tags["images"] == ["a"] and {"loss", "sets psnr_y"} <= set(tags["scalars"])
    assert files.read(smoke["there"] / "pictures/a.png").size == (36, 24)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_make_believe_device_has_every_tensor_of_a_step(tmp_path, monkeypatch, precision):
    seen = []

    def noted(sr, hr, config):
        seen.extend([sr.device, hr.device])
        return loss_of(sr, hr, config)

    loss_of = loop.loss_of
    monkeypatch.setattr(loop, "loss_of", noted)
    config = TrainConfig(data="synthetic", out=str(tmp_path), **METHOD | {"precision": precision})
    run = trained(config, "there")
    assert set(seen) == {DEVICE} and len(seen) == 24  # each loss again for the statistics
    for name in ("stage0", "second"):
        net = espan.load(run / f"{name}.safetensors")
        assert all(each.isfinite().all() for each in net.state_dict().values())


@pytest.mark.parametrize("first", ["cpu", "there"])
def test_make_believe_device_and_cpu_go_on_with_each_others_runs(tmp_path, first):
    config = TrainConfig(data="synthetic", out=str(tmp_path / "straight"), **METHOD)
    straight = trained(config, first)
    checkpoint = straight / "checkpoint-00-00000001.pt"
    assert (b"cuda:0" in checkpoint.read_bytes()) == (first == "there")
    (tmp_path / "moved").mkdir()
    shutil.copy(checkpoint, tmp_path / "moved")
    other = {"cpu": "there", "there": "cpu"}[first]
    moved = trained(replace(config, out=str(tmp_path / "moved")), other)
    assert_alike(moved, straight, ["stage0", "second"])
    rows = [json.loads(line) for line in (moved / "log.jsonl").read_text().splitlines()]
    steps = [(row["stage"], row["step"]) for row in rows]
    assert steps == [("stage0", 2), ("second", 1), ("second", 2)]


@pytest.mark.parametrize("forms", [("espan", "espan"), ("espan", None), ("plain", "ecb")])
@pytest.mark.parametrize("scales", [(4, 4), (2, 4)])
@pytest.mark.parametrize("there", ["source", "target"])
def test_make_believe_device_transfer_leaves_both_where_they_are(forms, scales, there):
    def pair():
        torch.manual_seed(0)
        return [ESPAN(8, 1, 0, s, rep) for s, rep in zip(scales, forms, strict=True)]

    want, (source, target) = pair(), pair()
    transfer_weights(*want)
    with make_believe():
        moved, other = (source, target) if there == "source" else (target, source)
        moved.to(DEVICE)
        transfer_weights(source, target)
        assert {p.device for p in moved.parameters()} == {DEVICE}
        assert {p.device for p in other.parameters()} == {torch.device("cpu")}
        state = {key: value.cpu() for key, value in target.state_dict().items()}
    torch.testing.assert_close(state, dict(want[1].state_dict()))
