"""Settings files by name: recipes of the package, paths, and names that are neither."""

import os
import shutil
from pathlib import Path

import pytest

from espan.cli import main
from espan.errors import InputError
from espan.training import recipes
from espan.training.config import read_config

CONFIGS = Path(__file__).parents[2] / "configs"


def test_recipes_are_the_files_of_configs():
    assert recipes.names() == sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    assert "smoke" in recipes.names()


def test_a_name_is_the_recipe_and_a_path_is_the_file(tmp_path, monkeypatch):
    pytest.importorskip("yaml")
    by_name = read_config("smoke", ["steps=7"])
    monkeypatch.chdir(tmp_path)
    assert read_config("smoke", ["steps=7"]) == by_name
    assert read_config(CONFIGS / "smoke.yaml", ["steps=7"]) == by_name


def test_a_file_comes_before_a_recipe_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("smoke").mkdir()
    assert recipes.find("smoke") == CONFIGS / "smoke.yaml"
    Path("smoke").rmdir()
    shutil.copy(CONFIGS / "finetune.yaml", "smoke")
    assert recipes.find("smoke") == Path("smoke")


@pytest.mark.parametrize("name", ["smoek", "smoke.yml", "configs/smok.yaml", "../smoke", "*"])
def test_an_unknown_name_lists_the_recipes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no recipe; recipes are .*finetune, smoke"):
        recipes.find(name)


@pytest.mark.parametrize("name", ["", 7, b"smoke"])
def test_empty_names_and_other_types_are_refused(name):
    with pytest.raises(InputError, match="config: "):
        recipes.find(name)


def test_a_fifo_is_refused(tmp_path):
    os.mkfifo(tmp_path / "run.yaml")
    with pytest.raises(InputError, match="a FIFO, not a file"):
        recipes.find(tmp_path / "run.yaml")


def test_the_command_lists_the_recipes_in_one_line(capsys):
    assert main(["train", "smoek"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "smoek" in line and "smoke" in line
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "espan_x4_paper" in capsys.readouterr().out
