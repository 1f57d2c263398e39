"""Losses against their definitions, student and teacher, transfer of weights, stages."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import espan
from espan import ESPAN, InputError, fold
from espan.networks.reparam import RepConv
from espan.training.config import TrainConfig, read_config
from espan.training.distill import SelfDistilled
from espan.training.loop import network_for_stage, terms_of, train
from espan.training.losses import distillation, high_pass, loss_of
from espan.training.transfer import transfer_weights
from tests.support.makers import TINY_RUN, as_yaml, noise

CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG = TrainConfig(data="synthetic", out="out", **TINY_RUN)


def net_of(blocks=2, last_convs=3, scale=4, rep=None, seed=0) -> ESPAN:
    torch.manual_seed(seed)
    return ESPAN(8, blocks, last_convs, scale, rep)


def images(n=2, side=16, seed=0, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, side, side, generator=generator, dtype=dtype)


def test_terms_of_the_loss_are_their_definitions():
    sr, hr = images(seed=1), images(seed=2)
    config = replace(CONFIG, l1=2.0, mse=3.0, dct=4.0, highpass=5.0, blur=1.0)
    terms = loss_of(sr, hr, config)
    side = torch.arange(16.0, dtype=torch.float64)
    basis = torch.cos(torch.pi * (side[None] + 0.5) * side[:, None] / 16) * (2 / 16) ** 0.5
    basis[0] /= 2**0.5
    transform = basis @ (sr - hr) @ basis.T
    assert terms["l1"] == 2 * (sr - hr).abs().mean()
    assert terms["mse"].item() == pytest.approx(3 * (sr - hr).square().mean().item())
    assert terms["dct"].item() == pytest.approx(4 * transform.abs().mean().item())
    edges = (high_pass(sr, 1.0) - high_pass(hr, 1.0)).abs().mean().item()
    assert terms["highpass"].item() == pytest.approx(5 * edges)
    assert set(loss_of(sr, hr, replace(CONFIG, l1=0, mse=1))) == {"mse"}


def test_high_pass_against_a_full_convolution():
    x, spread = images(side=20), 1.3
    far = torch.arange(-4, 5, dtype=torch.float64)
    kernel = torch.exp(-(far[:, None] ** 2 + far[None] ** 2) / (2 * spread**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 9, 9)
    blurred = F.conv2d(F.pad(x, [4] * 4, mode="replicate"), kernel, groups=3)
    torch.testing.assert_close(high_pass(x, spread), x - blurred)
    assert high_pass(torch.full((1, 3, 9, 9), 0.3), spread).abs().max() < 1e-6
    assert high_pass(x[..., :2, :2], spread).shape == (2, 3, 2, 2)


def test_distillation_moves_only_the_student_and_only_where_the_teacher_is_better():
    hr = torch.zeros(1, 3, 1, 3)
    student = torch.tensor([0.5, 0.1, 0.2]).expand(1, 3, 1, 3).clone().requires_grad_()
    teacher = torch.tensor([0.1, 0.4, 0.195]).expand(1, 3, 1, 3).clone().requires_grad_()
    loss = distillation(student, teacher, hr, margin=0.01)
    assert loss.item() == pytest.approx(0.4 / 3, rel=1e-5)
    loss.backward()
    assert teacher.grad is None
    assert (student.grad[0, 0, 0] > 0).tolist() == [True, False, False]
    same = student.detach().requires_grad_()
    distillation(same, same.detach() * 1, hr, margin=-1).backward()
    assert same.grad.isfinite().all()


@pytest.mark.parametrize("rep", [None, "espan"])
def test_student_and_teacher_share_the_backbone_and_run_alone(rep):
    model = SelfDistilled(net_of(3, 2, rep=rep).double(), 2).double()
    model.share()
    x = images()
    teacher, student = model(x)
    torch.testing.assert_close(teacher, model.teacher(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(student, model.student(x), rtol=0, atol=1e-12)
    own = {id(p) for p in model.teacher.parameters()}
    shared = [p for p in model.student.parameters() if id(p) in own]
    heads = [model.teacher.conv_1, *model.teacher.blocks[:2]]
    assert len(shared) == sum(len(list(each.parameters())) for each in heads)
    (teacher.sum() + student.sum()).backward()
    assert model.student.conv_cat.weight.grad.abs().sum() > 0
    again = copy.deepcopy(model)
    assert again.student.conv_1 is again.teacher.conv_1
    assert again.student.blocks[1] is again.teacher.blocks[1]
    assert fold(model.student).config["last_convs"] == 0


def test_terms_with_a_student():
    teacher, student, hr = (images(seed=i, dtype=torch.float32) for i in range(3))
    terms = terms_of((teacher, student), hr, replace(CONFIG, distill=0.5))
    assert set(terms) == {"l1", "student_l1", "distill"}
    assert terms["distill"] == 0.5 * distillation(student, teacher, hr, CONFIG.margin)
    assert "distill" not in terms_of((teacher, student), hr, replace(CONFIG, distill=0))


@pytest.mark.parametrize("rep", [None, "espan", "ecb"])
def test_transfer_is_exact_between_networks_of_one_form(rep):
    source, target = net_of(3, 3, rep=rep, seed=1), net_of(3, 2, rep=rep, seed=2)
    assert transfer_weights(source, target) == []
    ours, theirs = target.state_dict(), source.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    removed = set(theirs) - set(ours)
    assert removed and all(key.startswith("blocks.3.convs.2.") for key in removed)


def test_transfer_lists_the_layers_without_source_weights():
    fresh = transfer_weights(net_of(2, 0), target := net_of(3, 1, seed=5))
    assert fresh == [*(f"blocks.2.convs.{i}" for i in range(3)), "blocks.3.convs.0"]
    assert torch.equal(
        target.blocks[2].convs[0].weight, net_of(3, 1, seed=5).blocks[2].convs[0].weight
    )


@pytest.mark.parametrize("rep", ["espan", "ecb", "2*k-1, k", None])
def test_transfer_into_other_branches_is_the_same_function(rep):
    source, target = net_of(rep="plain").double(), net_of(rep=rep, seed=3).double()
    transfer_weights(source, target)
    x = images()
    torch.testing.assert_close(target(x), source(x), rtol=0, atol=1e-12)


def test_transfer_refuses_other_widths_and_missing_branches():
    with pytest.raises(InputError, match="channels: weights of 8 cannot start a network of 16"):
        transfer_weights(net_of(), ESPAN(16, 2, 3))
    with pytest.raises(InputError, match="expected a 'k' branch"):
        transfer_weights(net_of(), net_of(rep="span"))


@pytest.mark.parametrize("scales", [(2, 4), (4, 2), (3, 4), (4, 3), (2, 3)])
@torch.no_grad()
def test_transfer_between_scales_picks_the_nearest_sub_pixel(scales):
    before, after = scales
    source, target = net_of(scale=before).double(), net_of(scale=after, seed=2).double()
    transfer_weights(source, target)
    x = images(1, 6)
    small, large = source(x), target(x)
    rows = [int((i + 0.5) * before / after) for i in range(6 * after)]
    torch.testing.assert_close(large, small[..., rows, :][..., rows], rtol=0, atol=1e-12)


class ConstantPatches:
    """Constant patches."""

    def batch(self, step):
        batch = (255 * images(4, 12, dtype=torch.float32)).round().byte()
        return batch, batch.repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_a_stage_of_the_students_depth_continues_with_the_student():
    joint = replace(CONFIG, blocks=2, last_convs=3, student=2)
    model = network_for_stage(joint, None, ConstantPatches())
    x = images(dtype=torch.float32)
    torch.testing.assert_close(*(n.conv_cat.weight for n in (model.teacher, model.student)))
    with torch.no_grad():
        model.student.conv_cat.weight.mul_(1.5)
    alone = network_for_stage(replace(joint, student=None, last_convs=0), model, ConstantPatches())
    torch.testing.assert_close(alone(x), model.student(x), rtol=0, atol=0)
    tuned = network_for_stage(replace(joint, student=None), model, ConstantPatches())
    torch.testing.assert_close(tuned(x), model.teacher(x), rtol=0, atol=0)
    again = network_for_stage(joint, model, ConstantPatches())
    torch.testing.assert_close(again(x)[1], model.student(x), rtol=0, atol=0)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("smoke") / "run"
    overrides = [f"out={out}", "steps=4", "every=2", "batch=2", "patch=12", "warmup=0"]
    overrides.append("device=cpu")
    train(read_config(CONFIGS / "smoke.yaml", overrides))
    return out


def test_smoke_recipe_runs_every_stage_and_its_result_upscales(smoke):
    rows = [json.loads(line) for line in (smoke / "log.jsonl").read_text().splitlines()]
    names = ["joint_x2", "joint", "teacher", "cut_to_2", "cut_to_1", "final"]
    assert [row["stage"] for row in rows] == [name for name in names for _ in range(2)]
    assert "distill" in rows[0] and "distill" not in rows[-1]
    assert {"dct", "highpass", "mse"} <= rows[-1].keys() and rows[-1]["data_wait_ms"] >= 0
    for name, last_convs, scale in zip(names, (3, 3, 3, 2, 1, 1), (2, 4, 4, 4, 4, 4), strict=True):
        net = espan.load(smoke / f"{name}.safetensors")
        assert (net.config["last_convs"], net.scale) == (last_convs, scale)
    out = espan.upscale(noise(7, 5, 3), model=smoke / "final.safetensors", device="cpu")
    assert out.shape == (28, 20, 3)
    assert len(list(smoke.glob("checkpoint-*.pt"))) == 2


def test_a_run_of_stages_stopped_between_them_goes_on_to_the_same_bits(smoke, tmp_path):
    """Resumes from the first checkpoint of the last stage."""
    config = json.loads((smoke / "config.json").read_text())
    (tmp_path / "run").mkdir()
    first = sorted(smoke.glob("checkpoint-*.pt"))[0]
    (tmp_path / "run" / first.name).write_bytes(first.read_bytes())
    path = train(TrainConfig(**(config | {"out": str(tmp_path / "run")})))
    ours, theirs = espan.load(path).state_dict(), espan.load(smoke / path.name).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_read_and_takes_data_and_out(path, tmp_path):
    config = read_config(path, ["data=synthetic", f"out={tmp_path}"])
    assert (config.data, config.out) == ("synthetic", str(tmp_path))
    for number in range(config.number_of_stages):
        stage = config.stage(number)
        ESPAN(stage.channels, stage.blocks, stage.last_convs, stage.scale, stage.rep)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": [{"stps": 3}]}, r"stages\[0\]: unknown setting 'stps'; did you mean 'steps'"),
        ({"stages": [{"out": "x"}]}, r"stages\[0\]: unknown setting 'out'"),
        ({"stages": [{}, {"steps": "x"}]}, r"stages\[1\].steps: expected int, got 'x'"),
        ({"stages": [{"steps": 0}]}, r"stages\[0\]: steps: expected at least 1"),
        ({"stages": {"steps": 3}}, "stages: expected a list"),
        ({"stages": [3]}, r"stages\[0\]: expected dict, got 3"),
        ({"milestones": [0.5, "x"]}, r"milestones\[1\]: expected float, got 'x'"),
        ({"student": 3}, "student: expected 1 to 1 blocks, got 3"),
        ({"student": 1}, "student: as deep as its teacher"),
        ({"l1": 0}, "all are 0, expected one above 0"),
        ({"dct": 1, "dct_block": 7}, "dct_block: expected one of 4, 8, 16, 32, got 7"),
        ({"dct": 1, "dct_block": 0}, "dct_block: expected one of"),
        ({"dct": 1, "dct_block": 8, "patch": 9}, "dct_block: 8 does not divide a patch of 36"),
        ({"lr": -1}, "lr: expected a number above 0, got -1"),
        ({"muon_lr": float("nan")}, "muon_lr: expected a number above 0, got nan"),
        ({"clip": 0}, "clip: expected a number above 0"),
        ({"blur": 0}, "blur: expected a number above 0"),
        ({"warmup": 2}, "warmup: expected at most 1, got 2"),
        ({"ema": 1}, "ema: expected at most"),
        ({"cutblur": -1}, "cutblur: expected at least 0, got -1"),
        ({"milestones": [2]}, "milestones: expected shares of the steps"),
        ({"scale": 0}, "scale: expected at least 2, got 0"),
        ({"stages": [{"name": "a/b"}]}, r"stages\[0\]: name: expected a file name"),
        ({"stages": [{"name": "best"}]}, r"stages\[0\]: name: expected a file name, and not"),
        ({"stages": [{"name": "a"}, {"name": "a"}]}, "stages: expected unique names"),
        ({"stages": [{"name": "final"}, {}]}, "stages: expected unique names, and 'final' last"),
        ({"schedule": "linear"}, "schedule: expected cosine or step"),
        ({"degrade": 1}, "degrade: expected bool, got 1"),
    ],
)
def test_invalid_stages_are_refused(tmp_path, change, message):
    values = {"data": "synthetic", "out": "x"} | TINY_RUN | change
    with pytest.raises(InputError, match=message):
        read_config(as_yaml(tmp_path / "run.yaml", **values))


@pytest.mark.parametrize("init", ["none.safetensors", "other"])
def test_invalid_init_is_refused(tmp_path, init):
    if init == "other":
        init = str(tmp_path / "spanf.safetensors")
        espan.save(espan.SPANF(8, 1), init)
    config = replace(CONFIG, out=str(tmp_path / "run"), init=init)
    with pytest.raises(
        (InputError, espan.WeightsError), match=r"none\.safetensors|expected an ESPAN"
    ):
        train(config)


def test_init_is_where_training_starts(tmp_path):
    espan.save(net_of(1, 0), tmp_path / "start.safetensors")
    config = replace(
        CONFIG, out=str(tmp_path / "run"), init=str(tmp_path / "start.safetensors"), rep="espan"
    )
    x = images(dtype=torch.float32)
    net = network_for_stage(config, espan.load(config.init), ConstantPatches())
    assert isinstance(net.conv_1, RepConv) and not isinstance(net.conv_cat, RepConv)
    torch.testing.assert_close(net(x), net_of(1, 0)(x), rtol=1e-4, atol=1e-5)
    train(replace(config, steps=1, lr=1e-9, muon_lr=None))
    torch.testing.assert_close(
        espan.load(tmp_path / "run/final.safetensors")(x), net_of(1, 0)(x), rtol=1e-4, atol=1e-5
    )


def test_a_shared_layer_has_one_optimizer():
    """A shared layer has one optimizer, Adam or Muon, not two."""
    from espan.training.optim import optimizers_of

    model = SelfDistilled(net_of(3, 2), 2)
    optimizers = optimizers_of(model, model.teacher, CONFIG)
    trained = [p for each in optimizers for group in each.param_groups for p in group["params"]]
    assert len(trained) == len({id(p) for p in trained}) == len(list(model.parameters()))
    assert all(isinstance(p, nn.Parameter) for p in trained)
