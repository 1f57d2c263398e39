"""Teachers from weights files: terms by their definitions, kept outputs, invalid settings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import espan
from espan import ESPAN, SPAN, SPANF, InputError, WeightsError
from espan.images import files
from espan.training.config import TrainConfig, read_config
from espan.training.data import Patches
from espan.training.distill import SelfDistilled
from espan.training.image_pairs import ImagePairs
from espan.training.loop import train
from espan.training.outputs import LEVELS, compute_outputs, load_outputs
from espan.training.teachers import Teachers, affinity
from tests.support.folders import noisy
from tests.support.makers import TINY_RUN, as_yaml, noise


def saved(path: Path, network, *arguments, seed: int = 0, **options) -> str:
    torch.manual_seed(seed)
    net = network(*arguments, **options)
    with torch.no_grad():  # outputs within 0..1, unaffected by clamping, and brighter than the data
        up = net.conv_2 if network is SPANF else net.upsampler
        up.weight *= 0.1
        up.bias.fill_(0.8)
    espan.save(net, path)
    return str(path)


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    noisy(tmp_path / "data", 3, 48, 44)
    teachers = [
        saved(tmp_path / "span.safetensors", SPAN, 12, 2, seed=1),
        saved(tmp_path / "spanf.safetensors", SPANF, 6, 2, seed=2),
    ]
    run = {"data": str(tmp_path / "data"), "out": str(tmp_path / "run"), "teacher": teachers}
    return TrainConfig(**(TINY_RUN | run))


def kept(config: TrainConfig, folder: Path) -> ImagePairs:
    teachers, images = Teachers(config), ImagePairs(config.data, config.scale)
    compute_outputs(teachers, images, folder, "cpu")
    return load_outputs(teachers, images, folder)


def features_of(net, lr: torch.Tensor) -> torch.Tensor:
    """The output of `conv_cat`, the input of the upsampler."""
    given = []
    up = net.conv_2 if isinstance(net, SPANF) else net.upsampler
    handle = up.register_forward_pre_hook(lambda _layer, inputs: given.append(inputs[0]))
    net(lr)
    handle.remove()
    return given[0]


def mean_output(config: TrainConfig, lr: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        outputs = [espan.load(path)(lr).clamp(0, 1) for path in config.teacher]
    return sum(outputs) / len(outputs)


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


def test_kept_outputs_are_the_mean_of_the_teachers(config, tmp_path):
    images = kept(config, tmp_path / "kept")
    assert len(images.pairs) == 3
    for lr, hr, output in images.pairs:
        assert output.dtype == np.uint16 and output.shape == hr.shape
        x = torch.from_numpy(np.array(lr)).permute(2, 0, 1)[None].float() / 255
        expected = mean_output(config, x)[0].permute(1, 2, 0).numpy()
        assert np.abs(output / LEVELS - expected).max() < 2e-5
        assert expected.std() > 0.003


@pytest.mark.parametrize("workers", [0, 1])
def test_patches_of_outputs_are_cut_in_line(config, tmp_path, workers):
    folder = tmp_path / "data"
    teachers = Teachers(config)
    images = kept(config, tmp_path / "kept")
    # Outputs equal to the HR images detect wrong positions, flips and rotations.
    data = tmp_path / f"kept/teachers-x4-{teachers.key()}.bin"
    np.concatenate([hr.reshape(-1).astype(np.uint16) * 257 for _, hr, _ in images.pairs]).tofile(
        data
    )
    images = load_outputs(teachers, ImagePairs(folder, 4), tmp_path / "kept").at_least(32)
    patches = Patches(images, replace(config, workers=workers))
    plain = Patches(ImagePairs(folder, 4).at_least(32), config)
    for step, (lr, hr, output) in enumerate(patches.loader(0, 8, 0, 1)):
        assert torch.equal(hr.int() * 257, output.int())
        assert all(map(torch.equal, (lr, hr), plain.batch(step)))  # same as without teachers


def test_outputs_are_computed_once(config, tmp_path, monkeypatch):
    first = kept(config, tmp_path / "kept")
    monkeypatch.setattr("espan.training.outputs.Upscaler", None)
    renamed = tmp_path / "renamed.safetensors"
    renamed.write_bytes(Path(config.teacher[0]).read_bytes())
    # The same networks with other names and in another order.
    again = kept(replace(config, teacher=[config.teacher[1], str(renamed)]), tmp_path / "kept")
    for a, b in zip(first.pairs, again.pairs, strict=True):
        assert np.array_equal(a[2], b[2])
    with pytest.raises(TypeError):  # other teachers have another file
        kept(replace(config, teacher=config.teacher[:1]), tmp_path / "kept")


def test_outputs_of_other_images_are_refused(config, tmp_path):
    config = replace(config, teacher_outputs=str(tmp_path / "kept"))
    kept(config, tmp_path / "kept")
    files.write(tmp_path / "data/1.png", Image.fromarray(noise(48, 44, 3, seed=9)))
    with pytest.raises(
        InputError, match=r"kept/teachers-x4-\w+\.bin: .* 3 images of .*data, not for the 3 of"
    ):
        train(config)
    assert not list((tmp_path / "run").glob("checkpoint*"))


@pytest.mark.parametrize("damage", ["cut", "index", "no index"])
def test_damaged_outputs_are_refused_or_computed_again(config, tmp_path, damage):
    kept(config, tmp_path / "kept")
    data, index = (next((tmp_path / "kept").glob(f"*.{end}")) for end in ("bin", "json"))
    whole = data.read_bytes()
    if damage == "no index":  # killed between the two files
        index.unlink()
        data.write_bytes(b"")
        kept(config, tmp_path / "kept")
        assert data.read_bytes() == whole
        return
    data.write_bytes(whole[:-2]) if damage == "cut" else index.write_text("{}")
    why = "its size" if damage == "cut" else "cannot read"
    with pytest.raises(InputError, match=rf"teachers-x4-\w+\.bin: {why} .*; remove it"):
        kept(config, tmp_path / "kept")


def test_a_teacher_of_another_scale_is_refused_naming_both(config, tmp_path):
    two = saved(tmp_path / "two.safetensors", SPAN, 8, 1, scale=2)
    config = replace(config, teacher=[config.teacher[0], two], stages=[{"name": "only"}])
    with pytest.raises(
        InputError, match=r"two\.safetensors is a network of scale 2, and stage 'only' .* scale 4"
    ):
        train(config)
    assert not (tmp_path / "run/config.json").exists()


def test_outputs_of_a_larger_scale_are_scaled_down(config, tmp_path):
    config = replace(config, scale=3, teacher_scale=4, teacher_outputs=str(tmp_path / "kept"))
    ups = [espan.Upscaler(path, device="cpu", dtype="fp32") for path in config.teacher]
    for lr, hr, output in kept(config, tmp_path / "kept").pairs:
        expected = sum(up(lr / np.float32(255), 3) for up in ups) / len(ups)
        assert output.shape == hr.shape
        assert np.allclose(output / LEVELS, expected, rtol=0, atol=0.51 / LEVELS + 1e-6)


def test_an_ensemble_is_the_mean_over_flips_and_rotations(config, tmp_path):
    plain = replace(config, teacher_outputs=str(tmp_path / "kept"))
    ensemble = replace(plain, teacher_ensemble=True)
    nets = [espan.load(path) for path in config.teacher]
    for lr, _, output in kept(ensemble, tmp_path / "kept").pairs[:2]:
        x = torch.from_numpy(lr / np.float32(255)).permute(2, 0, 1)[None]
        expected = torch.zeros(1, 3, 4 * lr.shape[0], 4 * lr.shape[1])
        with torch.no_grad():
            for net in nets:
                for axes in ((), (2,), (3,), (2, 3)):
                    expected += net(x.flip(axes)).clamp(0, 1).flip(axes)
                    turned = net(x.transpose(2, 3).flip(axes)).clamp(0, 1)
                    expected += turned.flip(axes).transpose(2, 3)
        expected = (expected / 16)[0].permute(1, 2, 0).numpy()
        assert np.allclose(output / LEVELS, expected, rtol=0, atol=0.51 / LEVELS + 1e-6)
    # Both kinds of outputs have files of their own.
    single = kept(plain, tmp_path / "kept").pairs[0][2]
    assert not np.array_equal(single, kept(ensemble, tmp_path / "kept").pairs[0][2])
    assert len(list((tmp_path / "kept").glob("*.bin"))) == 2


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
