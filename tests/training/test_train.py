"""Training learns, and stops and resumes with the same bits as an uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import espan
from espan import ESPAN, EspanError, InputError, load
from espan.images import files
from espan.training import loop
from espan.training.config import TrainConfig
from espan.training.data import Patches
from espan.training.image_pairs import ImagePairs
from espan.training.loop import train
from espan.training.losses import loss_of
from espan.training.optim import lr_multiplier
from espan.training.start import initialise
from tests.support.makers import TINY_RUN, as_yaml, noise


def image(size: int, seed: int) -> np.ndarray:
    """Smooth, with edges: easy to learn."""
    y, x = np.mgrid[:size, :size] / 9 + seed
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], 2) / 3 + 0.5
    return np.round(np.where(waves > 0.6, 0.9, waves) * 255).astype(np.uint8)


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    for seed in range(3):
        (tmp_path / "data/deep").mkdir(parents=True, exist_ok=True)
        files.write(tmp_path / f"data/deep/{seed}.png", Image.fromarray(image(48, seed)))
    return TrainConfig(data=str(tmp_path / "data"), out=str(tmp_path / "run"), **TINY_RUN)


def weights_of(path) -> dict[str, torch.Tensor]:
    return load(path).state_dict()


def assert_equal_weights(a, b) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("rep", [None, "espan"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loss_goes_down(config, precision, rep):
    config = replace(config, steps=150, precision=precision, rep=rep, lr=3e-3, ema=0.9)
    patches = Patches(ImagePairs(config.data, 4).at_least(32), replace(config, batch=16, seed=1))
    lr, hr = (each.float() / 255 for each in patches.batch(0))
    torch.manual_seed(config.seed)
    start = ESPAN(8, 1, 0, 4, rep)
    initialise(start, lr)
    net = load(train(config))
    with torch.no_grad():
        after, before = (loss_of(each(lr), hr, config)["l1"] for each in (net, start))
        assert after < 0.9 * before


def test_result_is_folded_weights_that_load(config):
    path = train(replace(config, rep="espan"))
    assert path.name == "final.safetensors"
    net = load(path)
    assert net.folded and net.config["channels"] == 8 and net.scale == 4
    out = espan.upscale(noise(5, 6, 3), model=path, device="cpu")
    assert out.shape == (20, 24, 3)


@pytest.mark.parametrize("scale", [2, 3])
def test_other_scales(config, scale):
    assert load(train(replace(config, scale=scale, steps=1))).scale == scale


def test_log_and_config_are_kept(config):
    train(replace(config, steps=5))
    out = Path(config.out)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 5]
    assert all(row["loss"] > 0 for row in rows)
    assert json.loads((out / "config.json").read_text())["steps"] == 5


def test_validation_goes_into_the_log(config, tmp_path):
    train(replace(config, validate=str(tmp_path / "data/deep"), steps=2))
    row = json.loads((tmp_path / "run/log.jsonl").read_text())
    assert 5 < row["deep psnr_y"] < 60


def test_same_seed_same_bits(config, tmp_path):
    first = weights_of(train(config))
    assert_equal_weights(weights_of(train(replace(config, out=str(tmp_path / "again")))), first)
    other = weights_of(train(replace(config, out=str(tmp_path / "other"), seed=1)))
    assert any(not torch.equal(other[key], first[key]) for key in first)


class Stopping:
    """Sends this process a signal after so many steps, like a user or a scheduler."""

    def __init__(self, monkeypatch, step: int, number: int):
        get = Patches.__getitem__

        def stopping(patches, at):
            if at == step * patches.config.batch:
                os.kill(os.getpid(), number)
            return get(patches, at)

        monkeypatch.setattr(Patches, "__getitem__", stopping)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("rep", [None, "espan"])
@pytest.mark.parametrize("at", [1, 2, 5])
def test_stopped_and_resumed_is_bit_exact(config, tmp_path, monkeypatch, at, rep, number):
    config = replace(config, rep=rep)
    straight = weights_of(train(replace(config, out=str(tmp_path / "straight"))))
    with monkeypatch.context() as patch:
        Stopping(patch, at, number)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert not (tmp_path / "run/final.safetensors").exists()
    assert_equal_weights(weights_of(train(config)), straight)


def test_killed_run_goes_on_from_its_checkpoint(config, tmp_path, monkeypatch):
    straight = weights_of(train(replace(config, out=str(tmp_path / "straight"))))
    with monkeypatch.context() as patch:
        steps = []

        def killed(*arguments):
            steps.append(1)
            return 1 / 0 if len(steps) == 4 else loss_of(*arguments)

        patch.setattr(loop, "loss_of", killed)
        with pytest.raises(ZeroDivisionError):
            train(config)
    assert_equal_weights(weights_of(train(config)), straight)
    rows = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [2, 4, 6]


def test_finished_run_is_not_run_again(config, monkeypatch):
    first = weights_of(train(config))
    monkeypatch.setattr(loop, "loss_of", None)
    assert_equal_weights(weights_of(train(config)), first)


def test_resuming_with_other_settings_is_refused(config):
    train(config)
    with pytest.raises(
        InputError, match=r"checkpoint-00-00000006\.pt: written with another lr, seed"
    ):
        train(replace(config, lr=1e-4, seed=3))


@pytest.mark.parametrize("content", [b"", b"half a file", b"PK\x03\x04" + bytes(50)], ids=str)
def test_damaged_checkpoint_is_named(config, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint-00-00000002.pt").write_bytes(content)
    with pytest.raises(EspanError, match=r"checkpoint-00-00000002\.pt: damaged"):
        train(config)


def test_damaged_newest_checkpoint_gives_way_to_the_one_before(config, tmp_path):
    straight = weights_of(train(config))
    newest = tmp_path / "run/checkpoint-00-00000006.pt"
    newest.write_bytes(newest.read_bytes()[:999])
    assert_equal_weights(weights_of(train(config)), straight)


def test_loss_that_is_not_finite_stops_the_run(config, monkeypatch):
    monkeypatch.setattr(loop, "loss_of", lambda sr, hr, _: {"l1": (sr - hr).mean() * float("nan")})
    with pytest.raises(EspanError, match=r"main, step 0 \(patches of .*\.png.*: the loss is nan"):
        train(config)


# `espan train`; creates a file at the third step, after a batch of each of two workers.
UNDER_WAY = """
import sys
from pathlib import Path
from espan.cli import main
from espan.training import loop
steps, loss_of = [], loop.loss_of
def counted(*given):
    steps.append(given)
    if len(steps) == 3:
        Path(sys.argv[2]).touch()
    return loss_of(*given)
loop.loss_of = counted
sys.exit(main(["train", sys.argv[1]]))
"""


def under_way(config: TrainConfig, folder: Path) -> subprocess.Popen:
    """A process in its own group that trains with these settings until it is stopped."""
    path = as_yaml(folder / "run.yaml", **asdict(replace(config, steps=10**6, every=10**6)))
    process = subprocess.Popen(
        [sys.executable, "-c", UNDER_WAY, path, str(folder / "under_way")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (folder / "under_way").exists() and process.poll() is None:
        time.sleep(0.05)
    return process


def test_sigterm_saves_and_exits_130(config, tmp_path):
    process = under_way(config, tmp_path)
    process.terminate()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "interrupted" in err and "Traceback" not in err
    (path,) = (tmp_path / "run").glob("checkpoint-*.pt")
    state = torch.load(path, weights_only=True)
    assert 2 <= state["step"] < 10**6
    assert not [*(tmp_path / "run").glob(".*")]


def test_a_signal_to_the_whole_group_stops_a_run_with_workers(config, tmp_path):
    """Like schedulers send it; the workers ignore it."""
    process = under_way(replace(config, workers=2), tmp_path)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "interrupted" in err and "Traceback" not in err
    (path,) = (tmp_path / "run").glob("checkpoint-*.pt")
    state = torch.load(path, weights_only=True)
    assert 0 < state["step"] < 10**6
    assert not [*(tmp_path / "run").glob(".*")]


def test_best_weights_are_of_the_stage_under_way(config, tmp_path):
    stages = [{"name": "first", "scale": 2}, {"name": "second"}]
    config = replace(config, validate=str(tmp_path / "data/deep"), stages=stages)
    train(config)
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    best = tmp_path / "run/best.safetensors"
    assert load(best).scale == 4
    with safe_open(best, framework="pt") as file:
        score = float(file.metadata()["validation"])
    assert score == max(row["deep psnr_y"] for row in rows if row["stage"] == "second")


def test_validation_that_cannot_be_is_found_before_the_first_step(config, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        train(replace(config, validate=str(tmp_path / "nowhere")))
    assert not [*(tmp_path / "run").glob("checkpoint-*")]


def test_a_new_checkpoint_stays_beside_a_damaged_later_one(config, tmp_path):
    train(replace(config, keep=3))
    newest = tmp_path / "run/checkpoint-00-00000006.pt"
    newest.write_bytes(b"damaged")
    (tmp_path / "run/checkpoint-00-00000004.pt").unlink()
    newest = newest.rename(tmp_path / "run/checkpoint-00-00000099.pt")
    train(replace(config, keep=1))
    assert [path.name[14:-3] for path in (tmp_path / "run").glob("checkpoint-*")] == ["00000006"]


def test_rate_climbs_then_falls_to_nothing():
    config = TrainConfig(data="data", out="out", steps=100, warmup=0.1)
    rates = [lr_multiplier(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert max(rates) == 1 and 0 < rates[-1] < 0.001


@pytest.mark.parametrize("rep", [None, "espan", "span", "plain"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_start_is_near_nearest_upsampling_with_signal_in_every_block(rep, scale):
    torch.manual_seed(0)
    batch = torch.from_numpy(np.stack([image(24, seed) for seed in range(4)]))
    batch = batch.permute(0, 3, 1, 2).float() / 255
    net = ESPAN(16, 3, 2, scale, rep)
    initialise(net, batch)
    near = batch.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    residual = (net(batch) - near)[..., 12:-12, 12:-12]
    assert 0.02 < residual.std() < 0.4
    x = net.conv_1(batch)
    for block in net.blocks:
        x = block(x)
        assert 0.1 < x.std() < 10
