"""Stored outputs of teachers: their values, patches cut from them, damaged files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import espan
from espan import InputError
from espan.images import files
from espan.training.config import TrainConfig
from espan.training.data import Patches
from espan.training.image_pairs import ImagePairs
from espan.training.loop import train
from espan.training.outputs import LEVELS, compute_outputs, load_outputs
from espan.training.teachers import Teachers
from tests.support.makers import noise
from tests.support.teachers import mean_output, run_with_teachers


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    return run_with_teachers(tmp_path)


def kept(config: TrainConfig, folder: Path) -> ImagePairs:
    teachers, images = Teachers(config), ImagePairs(config.data, config.scale)
    compute_outputs(teachers, images, folder, "cpu")
    return load_outputs(teachers, images, folder)


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
