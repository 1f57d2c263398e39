"""Training data: images decoded or mapped; patches aligned, degraded and mixed."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from espan import InputError
from espan.cli import main
from espan.images import files
from espan.images.resize import downscale
from espan.training.config import TrainConfig
from espan.training.data import Patches
from espan.training.degrade import degrade
from espan.training.image_pairs import ImagePairs, prepare
from espan.training.loop import train
from tests.support.makers import TINY_RUN, noise


def settings(**changes) -> TrainConfig:
    small = {"data": "data", "out": "out", "patch": 6, "scale": 2}
    return TrainConfig(**(TINY_RUN | small | changes))


def write(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, Image.fromarray(pixels))


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        write(tmp_path / f"pictures/deep/{number}.png", noise(50, 40 + number, 3, seed=number))
    return tmp_path / "pictures"


def smooth(size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    return np.round(np.stack([x, y, 1 - x], 2) * 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_is_matlab_bicubic_of_the_whole_image(folder, scale):
    images = ImagePairs(folder, scale).at_least(12)
    assert [name[-5:] for name in images.names] == ["0.png", "1.png", "2.png"]
    for lr, hr in images.pairs:
        assert np.array_equal(lr, downscale(hr, scale))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_are_cut_in_line_in_eight_ways(tmp_path, scale):
    # LR pixels are the mean of their HR pixels, which detects wrong positions, flips and rotations.
    lr = noise(12, 12, 3)
    write(tmp_path / "HR/a.png", lr.repeat(scale, 0).repeat(scale, 1))
    write(tmp_path / f"LRx{scale}/a.png", lr)
    config = settings(scale=scale, batch=4)
    patches = Patches(ImagePairs(tmp_path, scale).at_least(6 * scale), config)
    seen = set()
    for step in range(40):
        lr, hr = patches.batch(step)
        assert lr.shape == (4, 3, 6, 6) and lr.dtype == torch.uint8
        assert torch.equal(lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3), hr)
        seen |= {each.numpy().tobytes() for each in lr}
    assert len(seen) > 100


def test_eight_flips_and_turns(tmp_path):
    write(tmp_path / "a.png", noise(12, 12, 3))
    patches = Patches(ImagePairs(tmp_path, 2).at_least(12), settings(batch=1))
    assert len({patches.batch(step)[1].numpy().tobytes() for step in range(100)}) == 8


def test_a_step_is_the_same_however_it_is_reached(folder):
    patches = Patches(ImagePairs(folder, 2).at_least(12), settings(batch=4))
    lr, hr = patches.batch(7)
    for workers in (0, 2):
        again = Patches(ImagePairs(folder, 2).at_least(12), settings(batch=4, workers=workers))
        ranks = [list(again.loader(5, 9, rank, 2)) for rank in (0, 1)]
        assert [len(each) for each in ranks] == [4, 4]
        for rank in (0, 1):
            assert torch.equal(ranks[rank][2][0], lr[rank::2])
            assert torch.equal(ranks[rank][2][1], hr[rank::2])
    other = Patches(ImagePairs(folder, 2).at_least(12), settings(batch=4), stage=1)
    assert not torch.equal(other.batch(7)[1], hr)
    assert len(patches.names(7)) == 4 and patches.names(7)[0].endswith(".png")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_prepared_tiles_are_the_images(folder, tmp_path, scale):
    index = prepare(folder, tmp_path / "out", tile=24)
    # 50 x 40 is cropped to 48 x 36: two by two tiles, of 24 and 12 columns.
    assert len(index["pictures"]) == 12 and not index["skipped"]
    direct, mapped = (
        ImagePairs(folder, scale).at_least(1),
        ImagePairs(tmp_path / "out", scale).at_least(1),
    )
    assert isinstance(mapped.pairs[0][0], np.memmap)
    for number, name in enumerate(direct.names):
        whole = files.read_rgb(name)[:48, :36]
        tiles = [pair for pair, its in zip(mapped.pairs, mapped.names, strict=True) if its == name]
        for i, source in ((1, whole), (0, downscale(whole, scale))):
            rows = [np.concatenate([t[i] for t in tiles[r : r + 2]], 1) for r in (0, 2)]
            assert np.array_equal(np.concatenate(rows), source), number
    assert len(ImagePairs(tmp_path / "out", scale).at_least(24).pairs) == 6


def test_prepare_takes_lr_files(tmp_path):
    write(tmp_path / "in/HR/a.png", noise(50, 38, 3))
    write(tmp_path / "in/LRx2/ax2.png", lr := noise(25, 19, 3, seed=1))
    prepare(tmp_path / "in", tmp_path / "out")
    ((given, _),) = ImagePairs(tmp_path / "out", 2).pairs
    assert np.array_equal(given, lr[:24, :18])


def test_unreadable_files_are_skipped_counted_and_listed(folder, tmp_path, capsys, caplog):
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    write(folder / "tiny.png", noise(5, 50, 3))
    assert main(["prepare", str(folder), "-o", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert out == "3 tiles, 2 files skipped\n"
    assert "broken.png" in err and "tiny.png" in err
    skipped = json.loads((tmp_path / "out/index.json").read_text())["skipped"]
    assert [each["path"].rsplit("/", 1)[1] for each in skipped] == ["broken.png", "tiny.png"]
    with caplog.at_level(logging.WARNING, "espan"):
        assert len(ImagePairs(folder, 2).skipped) == 1
    assert "1 files left out of training" in caplog.text and "broken.png" in caplog.text


def test_lr_of_another_size_names_both_files(tmp_path):
    write(tmp_path / "HR/a.png", noise(48, 48, 3))
    write(tmp_path / "LRx2/a.png", noise(20, 24, 3))
    for reading in (
        lambda: ImagePairs(tmp_path, 2),
        lambda: prepare(tmp_path, tmp_path / "out"),
    ):
        with pytest.raises(InputError, match=r"LRx2/a\.png: 24 x 20 .*HR/a\.png with 48 x 48"):
            reading()
    assert not (tmp_path / "out/index.json").exists()


def test_lr_file_that_is_missing_is_named(tmp_path):
    write(tmp_path / "HR/a.png", noise(48, 48, 3))
    (tmp_path / "LRx2").mkdir()
    with pytest.raises(InputError, match=r"a\.png: .*LRx2 has no LR image of this name"):
        ImagePairs(tmp_path, 2)


@pytest.mark.parametrize("what", ["missing", "empty", "small"])
def test_no_training_images(tmp_path, what):
    folder = tmp_path / what
    if what != "missing":
        folder.mkdir()
    if what == "small":
        write(folder / "a.png", noise(90, 31, 3))
    message = "no such folder" if what == "missing" else "no image with at least 32 pixels a side"
    with pytest.raises(InputError, match=f"{what}: {message}"):
        ImagePairs(folder, 2).at_least(32)
    # In a run with stages: before the first step of the first stage.
    stages = [{}, {"patch": 16}]
    config = settings(data=str(folder), out=str(tmp_path / "run"), patch=1, stages=stages)
    with pytest.raises(InputError, match=f"{what}: no"):
        train(config)
    assert not [*(tmp_path / "run").glob("checkpoint*")]
    if what != "small":
        with pytest.raises(InputError, match=f"{what}: no"):
            prepare(folder, tmp_path / "out")


@pytest.mark.parametrize("harm", ["index", "short", "short_lr", "no_lr"])
def test_damaged_prepared_folder(folder, tmp_path, harm):
    prepare(folder, out := tmp_path / "out")
    if harm == "index":
        (out / "index.json").write_text('{"pictures": 3}')
    elif harm.startswith("short"):
        (out / ("LRx2.bin" if harm == "short_lr" else "pictures.bin")).write_bytes(b"x" * 100)
    else:
        (out / "LRx2.bin").unlink()
    with pytest.raises(InputError, match="out: "):
        ImagePairs(out, 2)


def test_degradation_is_seeded_varied_and_keeps_the_image(tmp_path):
    hr = smooth(96)
    clean = downscale(hr, 4).astype(float)
    results = [degrade(hr, 4, np.random.default_rng(seed)) for seed in range(200)]
    assert np.array_equal(results[0], degrade(hr, 4, np.random.default_rng(0)))
    errors = [np.abs(each - clean)[3:-3, 3:-3].mean() for each in results]
    assert all(each.shape == (24, 24, 3) and each.dtype == np.uint8 for each in results)
    assert len({each.tobytes() for each in results}) > 180
    assert 0.5 < np.median(errors) < 20 and max(errors) < 50
    clean_share = np.mean([error < 0.5 for error in errors])
    assert 0.02 < clean_share < 0.3  # some are only resized


def test_degraded_patches(folder):
    clean = Patches(ImagePairs(folder, 2).at_least(12), settings())
    bad = Patches(ImagePairs(folder, 2).at_least(12), settings(degrade=True))
    assert torch.equal(bad.batch(0)[1], clean.batch(0)[1])
    assert not torch.equal(bad.batch(0)[0], clean.batch(0)[0])


def test_cutblur_pastes_hr_pixels_into_a_rectangle(tmp_path):
    lr = np.zeros((12, 12, 3), np.uint8)
    write(tmp_path / "HR/a.png", np.full((24, 24, 3), 255, np.uint8))
    write(tmp_path / "LRx2/a.png", lr)
    patches = Patches(ImagePairs(tmp_path, 2).at_least(12), settings(cutblur=1.0, batch=20))
    shares = [float(each.eq(255).float().mean()) for each in patches.batch(0)[0]]
    assert all(0 < share < 0.7 for share in shares) and len(set(shares)) > 5
    none = Patches(ImagePairs(tmp_path, 2).at_least(12), settings(cutblur=0.0, batch=20))
    assert not none.batch(0)[0].any()


def test_mixup_mixes_lr_and_hr_alike(tmp_path):
    for name, level in (("a", 0), ("b", 200)):
        write(tmp_path / f"HR/{name}.png", np.full((24, 24, 3), level, np.uint8))
    patches = Patches(ImagePairs(tmp_path, 2).at_least(12), settings(mixup=1.0, batch=40))
    lr, hr = patches.batch(0)
    levels = lr[:, 0, 0, 0]
    assert torch.equal(levels, hr[:, 0, 0, 0])
    assert len(levels.unique()) > 10 and levels.max() <= 200
