"""Training settings: unknown keys, wrong types and impossible values are named in one line."""

import os

import pytest
from PIL import Image

from espan import InputError
from espan.cli import main
from espan.images import files
from espan.training.config import TrainConfig, read_config
from tests.support.makers import TINY_RUN, as_yaml, noise


@pytest.fixture
def settings(tmp_path) -> dict:
    (tmp_path / "data").mkdir()
    files.write(tmp_path / "data/a.png", Image.fromarray(noise(48, 48, 3)))
    return {"data": str(tmp_path / "data"), "out": str(tmp_path / "run")} | TINY_RUN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chanels": 8}, "unknown setting 'chanels'; did you mean 'channels'"),
        ({"zzz": 8}, "unknown setting 'zzz'"),
        ({"channels": "many"}, "channels: expected int, got 'many'"),
        ({"channels": 8.5}, "channels: expected int, got 8.5"),
        ({"channels": True}, "channels: expected int, got True"),
        ({"lr": "fast"}, "lr: expected float, got 'fast'"),
        ({"lr": [1]}, "lr: expected float"),
        ({"data": 3}, "data: expected str, got 3"),
        ({"data": None}, "data: expected str, got None"),
        ({"precision": "fp8"}, "precision: expected fp32 or bf16 or fp16"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"scale": 5}, "scale: expected"),
        ({"rep": "expan"}, "rep: expected"),
        ({"channels": 2}, "channels: expected"),
        ({"blocks": 0}, "blocks: expected"),
        ({"batch": 10**9}, "batch: expected at most"),
        ({"batch": 2**20, "channels": 64}, "would take about"),
        ({"blocks": 100_000}, "blocks: expected at most 64, got 100000"),
        ({"channels": 4096}, "channels: expected at most 1024"),
        ({"patch": 10**9}, "patch: expected at most"),
        ({"workers": 10**6}, "workers: expected at most 256"),
        ({"milestones": [0.5] * 101}, "milestones: expected at most 100, got 101"),
        ({"stages": [{}] * 101}, "stages: expected at most 100, got 101"),
        ({"rep": "k," * 101}, "rep: expected at most 200 characters"),
        ({"rep": "99*k, 1"}, "rep: expected at most 64 branches, got 100"),
        ({"stages": [{"name": "a"}, {"blocks": 65}]}, "stages[1]: blocks: expected at most 64"),
        ({"stages": [{"name": "a"}, {"batch": 2**20}]}, "stage 'stage1' would take about"),
        ({"device": "abacus"}, "abacus"),
        ({"out": "/dev/null"}, "/dev/null"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_invalid_settings_are_refused(settings, tmp_path, capsys, change, message):
    path = as_yaml(tmp_path / "run.yaml", **(settings | change))
    assert main(["train", path]) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize(
    "text", ["data: [", "- a\n- b", "just text", "data: x\x00", "\xff\xfe"], ids=repr
)
def test_files_that_are_not_configs_are_refused(tmp_path, text):
    (tmp_path / "run.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"run\.yaml"):
        read_config(tmp_path / "run.yaml")


def test_missing_config_file_and_missing_settings(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "run.yaml").write_text("scale: 2")
    with pytest.raises(InputError, match="missing setting data, out"):
        read_config(tmp_path / "run.yaml")


def test_overrides_win(settings, tmp_path):
    path = as_yaml(tmp_path / "run.yaml", **settings, lr="1e-3")
    changed = read_config(path, ["lr=5e-4", "validate=sets", "rep=null", "steps=7"])
    assert (changed.lr, changed.validate, changed.rep, changed.steps) == (5e-4, "sets", None, 7)


@pytest.mark.parametrize("override", ["lr", "lr=[", "=3", "stepps=3"])
def test_invalid_overrides_are_refused(settings, tmp_path, override):
    path = as_yaml(tmp_path / "run.yaml", **settings)
    with pytest.raises(InputError):
        read_config(path, [override])


def test_settings_are_saved_by_atomic_rename(settings, tmp_path):
    config, path, old = TrainConfig(**settings), tmp_path / "config.json", tmp_path / "old.json"
    path.write_text("what was there")
    os.link(path, old)
    config.save(path)
    assert old.read_text() == "what was there" and '"data"' in path.read_text()


@pytest.mark.parametrize("text", ["[" * 5000, "data: " + "[" * 5000 + "]" * 5000, "a: \0"])
def test_malicious_yaml_is_a_one_line_error(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="not a readable YAML file") as caught:
        read_config(path)
    assert "\n" not in str(caught.value)
    path.write_text("{}")
    with pytest.raises(InputError, match="is not YAML"):
        read_config(path, [f"data={'[' * 5000}"])
