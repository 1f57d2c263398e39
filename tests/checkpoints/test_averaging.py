"""Averaging of weights: exact, and only for networks with the same config."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import espan
from espan import ESPAN, SPAN, SPANF, InputError, OutputError, WeightsError, fold, load
from espan.checkpoints.averaging import average
from espan.cli import main
from tests.support.makers import random_net


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Three fine-tunes: two in deploy form, one with branches."""
    nets = [random_net(seed=1), random_net(seed=2), random_net(seed=3, rep="espan")]
    paths = [str(tmp_path / f"{number}.safetensors") for number in range(3)]
    for net, path in zip(nets, paths, strict=True):
        espan.save(net, path)
    return paths


def saved(path: Path, net) -> str:
    espan.save(net, path)
    return str(path)


def test_the_mean_is_exact(files):
    result = average(files)
    nets = [load(path) for path in files]
    assert type(result) is ESPAN and not result.training and result.config == nets[0].config
    states = [net.state_dict() for net in nets]
    for key, mean in result.state_dict().items():
        exact = np.mean([state[key].numpy().astype(np.float64) for state in states], axis=0)
        assert mean.dtype == torch.float32
        np.testing.assert_array_equal(mean.numpy(), exact.astype(np.float32))
    folded = fold(load(files[2], folded=False))
    assert torch.equal(folded.conv_1.weight, states[2]["conv_1.weight"])


def test_equal_weights_stay_as_they_are_and_files_count_as_often_as_named(files):
    one = load(files[0]).state_dict()
    for key, value in average([files[0]] * 3).state_dict().items():
        assert torch.equal(value, one[key])
    twice, plain = average([files[0], files[0], files[1]]), average(files[:2])
    assert not torch.equal(twice.conv_1.weight, plain.conv_1.weight)


def test_command(files, tmp_path, capsys):
    for name, flags, dtype in (("a", [], torch.float32), ("b", ["--fp16"], torch.float16)):
        out = tmp_path / f"{name}.safetensors"
        assert main(["average", *files, "-o", str(out), *flags]) == 0
        assert "ESPAN x4, the mean of 3 networks" in capsys.readouterr().err
        with safe_open(out, framework="pt") as file:
            assert {file.get_tensor(key).dtype for key in file.keys()} == {dtype}  # noqa: SIM118
            assert "espan" in file.metadata()
        exact, read = average(files).state_dict(), load(out).state_dict()
        assert all(torch.equal(exact[key].to(dtype).float(), read[key]) for key in exact)
    assert main(["average", "-q", *files, "-o", str(out)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: SPANF(8, 2), "architecture ESPAN and SPANF"),
        (lambda: SPAN(8, 1), "architecture ESPAN and SPAN"),
        (lambda: random_net(scale=2), "scale 4 and 2"),
        (lambda: random_net(channels=12), "channels 8 and 12"),
        (lambda: random_net(blocks=2), "blocks 1 and 2"),
        (lambda: random_net(last_convs=2), "last_convs 0 and 2"),
    ],
)
def test_different_networks_are_refused_by_name(files, tmp_path, capsys, other, difference):
    path, out = saved(tmp_path / "other.safetensors", other()), tmp_path / "out.safetensors"
    assert main(["average", files[0], files[1], path, "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert files[0] in error and path in error and difference in error
    assert not out.exists()


def test_other_settings_of_a_published_network_are_refused(tmp_path):
    plain = saved(tmp_path / "a.safetensors", SPAN(8, 1))
    shifted = saved(tmp_path / "b.safetensors", SPAN(8, 1, img_range=1.0))
    with pytest.raises(InputError, match=r"img_range 255\.0 and 1\.0"):
        average([plain, shifted])


def test_what_cannot_be_averaged(files, tmp_path):
    with pytest.raises(InputError, match="expected two or more weights files, got 1"):
        average(files[:1])
    (tmp_path / "text.safetensors").write_text("no network")
    with pytest.raises(WeightsError, match=r"text\.safetensors"):
        average([files[0], tmp_path / "text.safetensors"])
    with pytest.raises(WeightsError, match=r"missing\.safetensors: no such weights file"):
        average([files[0], tmp_path / "missing.safetensors"])


def test_no_place_to_write(files, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file/out.safetensors"
    assert main(["average", *files, "-o", str(out)]) == 1
    assert str(out.parent) in capsys.readouterr().err
    with pytest.raises(OutputError):
        espan.save(average(files), out)
