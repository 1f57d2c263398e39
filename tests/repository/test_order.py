"""Imports within `espan/` go to lower layers only, without cycles."""

import re
from pathlib import Path

import pytest

from tests.support.architecture import DRAWING, LAYERS, PACKAGES, draw
from tests.support.imports import import_cycles, import_graph, imports, layer_violations

ROOT = Path(__file__).parents[2]
DATA = ("builtin", "pages")  # folders without code


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """The import graph without `espan/__init__.py`, which loads public modules lazily."""
    graph = import_graph(ROOT, PACKAGES)
    graph.pop("espan")
    return {name: imported - {"espan"} for name, imported in graph.items()}


def test_modules_import_downwards_only(graph):
    assert [*layer_violations(graph, "espan", LAYERS)] == []


def test_every_module_has_a_layer(graph):
    modules = {name.split(".")[1] for name in graph if name.startswith("espan.")}
    placed = [module for layer in LAYERS for module in layer]
    assert sorted(modules) == sorted(placed)


def test_the_readme_shows_the_modules_from_the_top_down():
    shown = re.findall(r"^\| `espan/(\w+)", (ROOT / "README.md").read_text(), re.M)
    layer = {module: number for number, modules in enumerate(LAYERS) for module in modules}
    assert sorted(shown) == sorted([*layer, *DATA])
    layers = [layer[module] for module in shown if module in layer]
    assert layers == sorted(layers, reverse=True)


def test_the_drawing_is_current():
    assert DRAWING.read_text() == draw(), "run `python -m tests.support.architecture`"


def test_there_are_no_import_cycles(graph):
    assert import_cycles(graph) == []


def test_modules_import_only_the_version_from_the_package():
    modules = {module for layer in LAYERS for module in layer}
    for path in (ROOT / "espan").rglob("*.py"):
        names = {name for module, name in imports(path) if module == "espan"} - modules
        assert names <= {"__version__"}, f"{path} imports {names} from espan"


# The remaining tests run these checks on small trees with known violations.


def tree(root: Path, **files: str) -> dict[str, set[str]]:
    """The graph of a package `house` of these modules: name, "/" written as "__" -> its source."""
    for name, text in files.items():
        path = root / "house" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    (root / "house/__init__.py").touch()
    return import_graph(root, ["house"])


HOUSE = (("cellar",), ("kitchen", "hall"), ("attic",))


@pytest.mark.parametrize(
    "source",
    [
        "import house.attic",
        "from house import attic",
        "from house.attic import roof",
        "def later():\n    from house.attic import roof",
        "if TYPE_CHECKING:\n    from house.attic import roof",
    ],
)
def test_an_import_upwards_is_found(tmp_path, source):
    graph = tree(tmp_path, attic="", kitchen__stove=source)
    assert [*layer_violations(graph, "house", HOUSE)] == [("house.kitchen.stove", "house.attic")]


def test_an_import_within_a_layer_is_found(tmp_path):
    graph = tree(tmp_path, hall__door="", kitchen__stove="from house.hall.door import bell")
    assert [*layer_violations(graph, "house", HOUSE)] == [
        ("house.kitchen.stove", "house.hall.door")
    ]


def test_imports_downwards_and_within_a_module_are_allowed(tmp_path):
    inside = "import torch\nimport house.cellar\nfrom house.kitchen import sink"
    graph = tree(tmp_path, cellar="", kitchen__sink="", kitchen__stove=inside)
    assert graph["house.kitchen.stove"] == {"house.cellar", "house.kitchen.sink"}
    assert [*layer_violations(graph, "house", HOUSE)] == [] == import_cycles(graph)


def test_a_module_without_a_layer_is_an_error(tmp_path):
    graph = tree(tmp_path, shed="import house.attic", attic="")
    with pytest.raises(KeyError, match="shed"):
        [*layer_violations(graph, "house", HOUSE)]


def test_cycles_of_every_length_are_found(tmp_path):
    graph = tree(
        tmp_path,
        kitchen__sink="def later():\n    from house.kitchen.stove import gas",
        kitchen__stove="from house.kitchen.sink import water",
        a="from house import b",
        b="if TYPE_CHECKING:\n    import house.c",
        c="from house.a import layer\nfrom house.cellar import wine",
        cellar="",
    )
    assert import_cycles(graph) == [
        ["house.a", "house.b", "house.c"],
        ["house.kitchen.sink", "house.kitchen.stove"],
    ]


def test_a_file_and_its_package_can_form_a_cycle(tmp_path):
    graph = tree(tmp_path, hall__door="from house.hall import bell")
    (tmp_path / "house/hall/__init__.py").write_text("from house.hall.door import knock")
    graph = import_graph(tmp_path, ["house"])
    assert import_cycles(graph) == [["house.hall", "house.hall.door"]]
