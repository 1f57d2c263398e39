"""`espan eval` and `espan doctor`: the tables they print."""

import json

import numpy as np
import pytest
from PIL import Image

from espan import InputError
from espan.checkpoints.weights import save
from espan.cli import main
from espan.evaluation.benchmark import COLUMNS, bicubic, evaluate
from espan.images import files
from espan.images.resize import downscale
from tests.support.makers import nearest_net, noise


@pytest.fixture
def sets(tmp_path):
    """Two sets: one with LR files, one with HR sizes not divisible by 4."""
    for name, size in (("one", (48, 64)), ("two", (50, 63))):
        (tmp_path / name / "HR").mkdir(parents=True)
        for seed in range(2):
            pixels = np.kron(noise(8, 8, 3, seed=seed), np.ones((8, 8, 1), np.uint8))
            files.write(tmp_path / name / f"HR/{seed}.png", Image.fromarray(pixels).resize(size))
    (tmp_path / "one/LRx4").mkdir()
    return tmp_path


def test_mean_follows_its_set(sets):
    rows = list(evaluate(bicubic(4), sets, 4))
    expected = [(s, n) for s in ("one", "two") for n in ("0", "1", "mean")]
    assert [(row.dataset, row.name) for row in rows] == expected
    for column in COLUMNS:
        mean = (rows[0].values[column] + rows[1].values[column]) / 2
        assert rows[2].values[column] == pytest.approx(mean)


@pytest.mark.parametrize("name", ["0.png", "0x4.png"], ids=["same-name", "ntire-name"])
def test_published_lr_files_are_used(sets, name):
    grey = np.full((16, 12, 3), 128, np.uint8)
    files.write(sets / "one/LRx4" / name, Image.fromarray(grey))
    seen = []
    list(evaluate(lambda lr: seen.append(lr) or bicubic(4)(lr), sets / "one", 4))
    np.testing.assert_array_equal(seen[0], grey)
    hr = np.asarray(Image.open(sets / "one/HR/1.png"))
    np.testing.assert_array_equal(seen[1], downscale(hr, 4))


def test_lr_file_of_the_wrong_size(sets):
    files.write(sets / "one/LRx4/0.png", Image.new("RGB", (5, 5)))
    rows = list(evaluate(bicubic(4), sets / "one", 4))
    assert "LRx4/0.png: expected 1/4 of 0.png" in rows[0].error


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (16, 18), (3, 50)], ids=str)
def test_image_too_small_to_measure_is_named(sets, size):
    files.write(sets / "two/HR/0.png", Image.new("RGB", size))
    rows = list(evaluate(bicubic(4), sets / "two", 4))
    assert "0.png: " in rows[0].error and not rows[0].values
    assert all(row.name != "0" for row in rows[1:])


def test_one_bad_image_does_not_stop_the_table(sets, capsys):
    good = list(evaluate(bicubic(4), sets / "one", 4))
    (sets / "one/HR/bad.png").write_bytes(b"not an image")
    assert main(["eval", "--data", str(sets / "one"), "--bicubic", "--json"]) == 1
    shown = capsys.readouterr()
    assert "bad.png: not an image" in shown.err
    rows = json.loads(shown.out)
    assert rows[-1]["name"] == "mean"
    assert rows[-1]["values"] == pytest.approx(good[-1].values)


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_no_images(tmp_path, kind):
    folder = tmp_path / kind
    if kind == "empty":
        folder.mkdir()
    with pytest.raises(InputError, match=kind if kind == "missing" else "expected images"):
        list(evaluate(bicubic(4), folder, 4))


def test_table(sets, tmp_path, capsys):
    save(nearest_net(), tmp_path / "net.safetensors")
    assert (
        main(
            [
                "eval",
                "--data",
                str(sets),
                "--device",
                "cpu",
                "-n",
                str(tmp_path / "net.safetensors"),
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["set", "image", *COLUMNS]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["one", "0"],
        ["one", "1"],
        ["one", "mean"],
    ]
    assert all(len(line.split()) == 2 + len(COLUMNS) for line in lines)


def test_table_as_json(sets, capsys):
    assert main(["eval", "--data", str(sets / "two"), "--bicubic", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["0", "1", "mean"]
    assert set(rows[0]["values"]) == set(COLUMNS)


def test_scale_of_another_model(sets, weights, capsys):
    assert main(["eval", "--data", str(sets), "--device=cpu", "-n", weights, "--scale", "2"]) != 0
    assert "scale: expected the model's, 4, got 2" in capsys.readouterr().err


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "y"), [("espan_x4_ntire2025", 31.94), ("span28_x4_ntire2024", 31.75)]
)
def test_published_table_of_set5(shared, capsys, name, y):
    weights = str(shared / f"weights/{name}.pth")
    data = str(shared / "data/benchmark/Set5")
    assert main(["eval", "--data", data, "--scale", "4", "--device=cpu", "-n", weights]) == 0
    mean = capsys.readouterr().out.splitlines()[-1].split()
    assert mean[:2] == ["Set5", "mean"]
    assert float(mean[2 + COLUMNS.index("psnr_y")]) == pytest.approx(y, abs=0.01)


def test_doctor_names_versions_devices_and_reasons(capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in ("torch", "pillow", "cpu", "memory", "gpu", "auto", "kernels"):
        assert word in shown
    assert torch.__version__.split("+")[0] in shown
    assert "none: " in shown


def test_doctor_as_json(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["auto"].startswith("device ")
