"""Recipes: the settings files that come with the package, found by name."""

from pathlib import Path

from espan.errors import InputError
from espan.system.paths import NOTHING, as_path, is_file, is_folder, why_no_file

# Inside an installed package, and beside it in a checkout.
_PLACES = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")


def names() -> list[str]:
    """The recipes that there are, as `find` knows them."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find(name: str | Path) -> Path:
    """The settings file of that path, or else the recipe of that name.

    Raises:
        InputError: it is neither, or the file is no regular one; the message lists the recipes.
    """
    path = as_path(name, "config")
    if not is_file(path) and str(path) in names():
        return _folder() / f"{path}.yaml"
    problem = why_no_file(path)  # of a FIFO or a device there is no end
    if problem == NOTHING:
        raise InputError(f"{path}: no such file, and no recipe; recipes are {', '.join(names())}")
    if problem:
        raise InputError(f"{path}: not a readable YAML file: {problem}")
    return path


def _folder() -> Path:
    return next((place for place in _PLACES if is_folder(place)), _PLACES[0])
