"""Teachers from weights files: terms by their definitions, training with them, invalid settings."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import espan
from espan import ESPAN, SPAN, SPANF, InputError, WeightsError
from espan.training.config import TrainConfig, read_config
from espan.training.data import Patches
from espan.training.distill import SelfDistilled
from espan.training.image_pairs import ImagePairs
from espan.training.loop import train
from espan.training.teachers import Teachers, affinity
from tests.support.makers import TINY_RUN, as_yaml
from tests.support.teachers import mean_output, run_with_teachers, saved


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    return run_with_teachers(tmp_path)


def features_of(net, lr: torch.Tensor) -> torch.Tensor:
    """The output of `conv_cat`, the input of the upsampler."""
    given = []
    up = net.conv_2 if isinstance(net, SPANF) else net.upsampler
    handle = up.register_forward_pre_hook(lambda _layer, inputs: given.append(inputs[0]))
    net(lr)
    handle.remove()
    return given[0]


def test_affinity_is_the_cosine_of_features_inside_a_window():
    x = torch.rand(2, 5, 17, 10, generator=torch.Generator().manual_seed(0)) - 0.5
    result = affinity(x)
    assert result.shape == (2, 2, 1, 64, 64)
    for batch, row, a, b in [(0, 0, 3, 60), (1, 1, 17, 17), (1, 0, 63, 8)]:
        places = [x[batch, :, 8 * row + place // 8, place % 8] for place in (a, b)]
        expected = F.cosine_similarity(*places, dim=0)
        torch.testing.assert_close(result[batch, row, 0, a, b], expected)
    torch.testing.assert_close(affinity(3 * x), result)
    assert affinity(x[..., :6, :5]).shape == (2, 1, 1, 25, 25)


@pytest.mark.parametrize("student", [None, 1])
def test_terms_are_their_definitions(config, student):
    config = replace(config, teacher_l1=2.0, teacher_mse=3.0, teacher_affinity=4.0)
    teachers = Teachers(config)
    torch.manual_seed(5)
    net = ESPAN(8, 1, 1)
    model = SelfDistilled(net, student) if student else net
    teachers.watch(model)
    lr = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    sr = model(lr)
    terms = teachers.terms(lr, sr)
    pixels = mean_output(config, lr)
    nets = {"": model.teacher, "student_": model.student} if student else {"": net}
    assert len(terms) == 3 * len(nets)
    for name, each in nets.items():
        image = each(lr)
        torch.testing.assert_close(terms[f"{name}teacher_l1"], 2 * (image - pixels).abs().mean())
        torch.testing.assert_close(
            terms[f"{name}teacher_mse"], 3 * (image - pixels).square().mean()
        )
        ours, *theirs = (affinity(features_of(net, lr)) for net in (each, *teachers.nets))
        expected = 4 * (ours - (theirs[0] + theirs[1]) / 2).abs().mean()
        torch.testing.assert_close(terms[f"{name}teacher_affinity"], expected)
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in net.conv_cat.parameters())
    assert all(p.grad is None for p in teachers.parameters())


def test_kept_outputs_take_the_place_of_the_teachers(config):
    teachers, net = Teachers(replace(config, teacher_mse=2.0)), ESPAN(8, 1, 1)
    teachers.watch(net)
    lr, pixels = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)
    sr = net(lr)
    terms = teachers.terms(lr, sr, [pixels])
    torch.testing.assert_close(terms["teacher_l1"], (sr - pixels).abs().mean())
    torch.testing.assert_close(terms["teacher_mse"], 2 * (sr - pixels).square().mean())


def test_a_teacher_of_another_scale_is_refused_naming_both(config, tmp_path):
    two = saved(tmp_path / "two.safetensors", SPAN, 8, 1, scale=2)
    config = replace(config, teacher=[config.teacher[0], two], stages=[{"name": "only"}])
    with pytest.raises(
        InputError, match=r"two\.safetensors is a network of scale 2, and stage 'only' .* scale 4"
    ):
        train(config)
    assert not (tmp_path / "run/config.json").exists()


@pytest.mark.parametrize("content", [None, b"no network", b"PK\x03\x04" + bytes(50)], ids=str)
def test_a_teacher_that_is_not_a_network_is_refused(config, tmp_path, content):
    bad = tmp_path / "bad.pth"
    if content is not None:
        bad.write_bytes(content)
    # An error in the last stage is raised before the first step of the first stage.
    config = replace(config, stages=[{"name": "a"}, {"name": "b", "teacher": [str(bad)]}])
    with pytest.raises(WeightsError, match=r"bad\.pth"):
        train(config)
    assert not (tmp_path / "run/config.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"degrade": True}, "degrade: changes the LR images"),
        ({"mixup": 0.1, "cutblur": 0.5}, "cutblur, mixup: changes the LR images"),
        ({"teacher_affinity": 1}, "teacher_affinity: needs the teachers' features"),
        ({"teacher_l1": 0}, "teacher_l1, teacher_mse, teacher_affinity: all are 0"),
        ({"teacher": [3]}, r"teacher\[0\]: expected str, got 3"),
        ({"teacher_mse": -1}, "teacher_mse: expected at least 0"),
        ({"teacher_scale": 3}, "teacher_scale: expected more than scale, 4, got 3"),
        ({"scale": 3, "teacher_scale": 4, "teacher_outputs": None}, "set teacher_outputs"),
        ({"teacher_ensemble": True, "teacher_outputs": None}, "teacher_ensemble: .* set teacher_"),
    ],
)
def test_invalid_settings_are_refused(tmp_path, change, message):
    values = {"data": "synthetic", "out": "x", "teacher": "a.pth", "teacher_outputs": "kept"}
    with pytest.raises(InputError, match=message):
        read_config(as_yaml(tmp_path / "run.yaml", **(values | TINY_RUN | change)))


def test_one_teacher_needs_no_brackets(tmp_path):
    path = as_yaml(tmp_path / "run.yaml", data="synthetic", out="x", teacher="a.pth", l1=0)
    assert read_config(path).teacher == ["a.pth"]
    assert read_config(path, ["teacher=b.pth"]).teacher == ["b.pth"]


@pytest.mark.parametrize("outputs", [None, "kept"])
def test_the_network_comes_nearer_to_its_teachers(config, tmp_path, outputs):
    outputs = outputs and str(tmp_path / outputs)
    config = replace(config, l1=0, steps=60, batch=8, lr=3e-3, ema=0.9, every=60)
    net = espan.load(train(replace(config, teacher_outputs=outputs)))
    other = espan.load(train(replace(config, teacher=[], l1=1, out=str(tmp_path / "other"))))
    lr = Patches(ImagePairs(config.data, 4).at_least(32), config).batch(100)[0].float() / 255
    target = mean_output(config, lr)
    with torch.no_grad():
        near, far = ((each(lr) - target).abs().mean() for each in (net, other))
    assert near < 0.6 * far


@pytest.mark.parametrize("outputs", [None, "kept"])
def test_works_with_branches_student_and_frequencies_and_goes_on(
    config, tmp_path, monkeypatch, outputs
):
    config = replace(
        config,
        rep="espan",
        last_convs=1,
        dct=0.1,
        highpass=0.5,
        teacher_outputs=outputs and str(tmp_path / outputs),
        teacher_affinity=0 if outputs else 0.1,
        stages=[{"name": "joint", "student": 1}, {"name": "final", "last_convs": 0}],
    )
    straight = train(replace(config, out=str(tmp_path / "straight")))
    with monkeypatch.context() as patch:
        calls, terms = [], Teachers.terms

        def failing(*arguments):
            calls.append(1)
            return 1 / 0 if len(calls) == 4 else terms(*arguments)

        patch.setattr(Teachers, "terms", failing)
        with pytest.raises(ZeroDivisionError):
            train(config)
    again, first = (espan.load(path).state_dict() for path in (train(config), straight))
    assert all(torch.equal(again[key], first[key]) for key in first)
    log = (tmp_path / "run/log.jsonl").read_text()
    assert '"student_teacher_l1"' in log and '"highpass"' in log
    assert ('"teacher_affinity"' in log) == (outputs is None)


@pytest.mark.shared
def test_published_teachers_load_and_those_of_x2_do_not_teach_x4(shared, config):
    paths = [str(shared / f"weights/teachers/span_x4_ch{width}.pth") for width in (48, 52)]
    if not Path(paths[0]).is_file():
        pytest.skip("no teachers' weights")
    nets = Teachers(replace(config, teacher=paths)).nets
    assert [net.config["channels"] for net in nets] == [48, 52]
    with pytest.raises(InputError, match=r"span_x2_ch48\.pth is a network of scale 2"):
        Teachers(replace(config, teacher=[*paths, paths[0].replace("x4", "x2")]))
