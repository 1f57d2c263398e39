"""The fixed share of frequency terms in the loss, its statistics, and the final average."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import espan
from espan import ESPAN, InputError, load
from espan.checkpoints.averaging import average
from espan.training.balance import hold_share, statistics_of
from espan.training.config import TrainConfig
from espan.training.loop import train
from tests.support.folders import noisy
from tests.support.makers import TINY_RUN, random_net


def alone(x: torch.Tensor) -> torch.Tensor:
    """The mean over a single process."""
    return x


def terms_of(weight: torch.Tensor) -> dict:
    return {
        "l1": 0.3 * weight.abs().sum(),
        "teacher_l1": 0.1 * weight.abs().sum(),
        "dct": 5.0 * weight.square().sum(),
        "student_highpass": 1.0 * weight.square().sum(),
    }


@pytest.mark.parametrize("share", [0.03, 0.05, 0.5])
def test_frequencies_have_their_share_and_their_proportion(share):
    weight = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    before, after = terms_of(weight), hold_share(terms_of(weight), share, alone)
    assert after["l1"] == before["l1"] and after["teacher_l1"] == before["teacher_l1"]
    part = after["dct"] + after["student_highpass"]
    assert (part / sum(after.values())).item() == pytest.approx(share, rel=1e-5)
    proportion = (before["dct"] / before["student_highpass"]).item()
    assert (after["dct"] / after["student_highpass"]).item() == pytest.approx(proportion)


def test_the_factor_has_no_gradient():
    """Otherwise the network could reduce the term by reducing the others."""
    weight = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    terms = hold_share(terms_of(weight), 0.04, alone)
    (gradient,) = torch.autograd.grad(terms["dct"], weight)
    factor = (terms["dct"] / terms_of(weight)["dct"]).item()
    torch.testing.assert_close(gradient, factor * 10 * weight.detach())


def test_what_stays_as_it_is():
    weight = torch.tensor([0.5], requires_grad=True)
    plain = {"l1": weight.abs().sum()}
    assert hold_share(plain, 0.04, alone) is plain
    terms = terms_of(weight)
    assert hold_share(terms, 0.0, alone) is terms
    nothing = terms | {"dct": 0 * terms["dct"], "student_highpass": 0 * terms["dct"]}
    assert hold_share(nothing, 0.04, alone) is nothing


def test_shares_and_cosines_are_their_definitions():
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    unused = torch.tensor([1.0], requires_grad=True)
    terms = {"l1": weight[0] + 0, "dct": 2 * weight.sum(), "highpass": -weight[0] + 5}
    row = statistics_of(terms, weight[0] * 7, [weight, unused], alone)
    assert row["l1 share"] == pytest.approx(3 / 19) and row["dct share"] == pytest.approx(14 / 19)
    assert row["l1 cosine"] == pytest.approx(1) and row["highpass cosine"] == pytest.approx(-1)
    assert row["dct cosine"] == pytest.approx(0.5**0.5)


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    run = {"data": str(noisy(tmp_path / "data", 2, 40, 40)), "out": str(tmp_path / "run")}
    return TrainConfig(**(TINY_RUN | run))


def last_row(config: TrainConfig) -> dict:
    return json.loads(Path(config.out, "log.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_log_of_a_run_tells_shares_and_cosines(config, precision):
    changes = {"dct": 0.1, "highpass": 0.5, "frequency_share": 0.04, "precision": precision}
    train(replace(config, **changes))
    row = last_row(config)
    assert row["dct share"] + row["highpass share"] == pytest.approx(0.04, abs=2e-4)
    assert row["l1 share"] == pytest.approx(0.96, abs=2e-4)
    assert row["l1 cosine"] == pytest.approx(1, abs=1e-3)
    assert -1 <= row["dct cosine"] < 1 and -1 <= row["highpass cosine"] < 1
    assert row["loss"] == pytest.approx(row["l1"] + row["dct"] + row["highpass"])


def test_the_log_changes_nothing(config, tmp_path):
    """Weights are the same with a row of statistics after every step."""
    rare = train(replace(config, dct=0.1, steps=4, every=4))
    often = train(replace(config, dct=0.1, steps=4, every=1, out=str(tmp_path / "other")))
    one, other = load(rare).state_dict(), load(often).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frequency_share": 0.04}, "frequency_share: needs dct or highpass above 0"),
        ({"frequency_share": 0.04, "dct": 1, "l1": 0}, "frequency_share: needs a term besides"),
        ({"frequency_share": 1, "dct": 1}, "frequency_share: expected at most 0.9, got 1"),
        ({"frequency_share": -1, "dct": 1}, "frequency_share: expected at least 0, got -1"),
    ],
)
def test_shares_that_cannot_be(config, change, message):
    with pytest.raises(InputError, match=message):
        replace(config, **change)


def test_a_run_ends_with_the_mean_of_its_weights_and_those_named(config, tmp_path):
    others = []
    for seed in (1, 2):
        others.append(str(tmp_path / f"{seed}.safetensors"))
        espan.save(random_net(seed=seed), others[-1])
    final = train(replace(config, average=others, stages=[{"name": "one"}]))
    expected = average([f"{config.out}/one.safetensors", *others]).state_dict()
    result = load(final).state_dict()
    assert all(torch.equal(result[key], expected[key]) for key in expected)
    assert not torch.equal(result["conv_1.weight"], load(others[0]).conv_1.weight)


def test_weights_that_cannot_be_averaged_are_refused_before_the_first_step(config, tmp_path):
    other = tmp_path / "other.safetensors"
    espan.save(ESPAN(8, 2, 0), other)
    with pytest.raises(InputError, match="different networks: blocks 1 and 2") as error:
        train(replace(config, average=[str(other)]))
    assert str(other) in str(error.value) and "final.safetensors" in str(error.value)
    with pytest.raises(espan.WeightsError, match="missing"):
        train(replace(config, average=[str(tmp_path / "missing.safetensors")]))
    assert not list((tmp_path / "run").glob("*.jsonl"))
