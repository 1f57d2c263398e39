"""The order of the rooms: imports within `espan/` go downwards only, and no files form a circle."""

import re
from pathlib import Path

import pytest

from tests.support.imports import circles, import_graph, imports, not_downwards

ROOT = Path(__file__).parents[2]
PACKAGES = ("espan_kernels", "espan", "bench", "tests")
# The lowest floor first. A room imports rooms of lower floors, none beside it or above it.
FLOORS = (
    ("errors",),
    ("sizes",),
    ("options",),
    ("system",),
    ("networks", "images"),
    ("checkpoints", "backends"),
    ("execution",),
    ("upscaler",),
    ("shortcut",),
    ("evaluation",),  # training validates by it
    ("animation",),
    ("exporting", "training", "batch", "video"),
    ("comparison", "demo"),
    ("cli",),
)
DATA = ("builtin", "pages")  # folders without code


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Without the face of the package: it names every public module and imports none."""
    whole = import_graph(ROOT, PACKAGES)
    whole.pop("espan")
    return {name: imported - {"espan"} for name, imported in whole.items()}


def test_rooms_import_downwards_only(graph):
    assert [*not_downwards(graph, "espan", FLOORS)] == []


def test_every_room_has_a_floor(graph):
    rooms = {name.split(".")[1] for name in graph if name.startswith("espan.")}
    placed = [room for floor in FLOORS for room in floor]
    assert sorted(rooms) == sorted(placed)


def test_the_readme_shows_the_rooms_from_the_top_down():
    shown = re.findall(r"^\| `espan/(\w+)", (ROOT / "README.md").read_text(), re.M)
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    assert sorted(shown) == sorted([*floor, *DATA])
    floors = [floor[room] for room in shown if room in floor]
    assert floors == sorted(floors, reverse=True)


def test_no_files_import_each_other_in_a_circle(graph):
    assert circles(graph) == []


def test_the_package_takes_its_version_from_its_face_and_nothing_else():
    rooms = {room for floor in FLOORS for room in floor}
    for path in (ROOT / "espan").rglob("*.py"):
        names = {name for module, name in imports(path) if module == "espan"} - rooms
        assert names <= {"__version__"}, f"{path} imports {names} of espan"


# What follows holds the check itself to small trees with known faults.


def tree(root: Path, **files: str) -> dict[str, set[str]]:
    """The graph of a package `house` of these rooms: name, "/" written as "__" -> its source."""
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
    assert [*not_downwards(graph, "house", HOUSE)] == [("house.kitchen.stove", "house.attic")]


def test_an_import_of_the_room_beside_is_found(tmp_path):
    graph = tree(tmp_path, hall__door="", kitchen__stove="from house.hall.door import bell")
    assert [*not_downwards(graph, "house", HOUSE)] == [("house.kitchen.stove", "house.hall.door")]


def test_imports_downwards_and_within_a_room_are_let_be(tmp_path):
    inside = "import torch\nimport house.cellar\nfrom house.kitchen import sink"
    graph = tree(tmp_path, cellar="", kitchen__sink="", kitchen__stove=inside)
    assert graph["house.kitchen.stove"] == {"house.cellar", "house.kitchen.sink"}
    assert [*not_downwards(graph, "house", HOUSE)] == [] == circles(graph)


def test_a_room_without_a_floor_is_an_error(tmp_path):
    graph = tree(tmp_path, shed="import house.attic", attic="")
    with pytest.raises(KeyError, match="shed"):
        [*not_downwards(graph, "house", HOUSE)]


def test_circles_of_every_length_are_found(tmp_path):
    graph = tree(
        tmp_path,
        kitchen__sink="def later():\n    from house.kitchen.stove import gas",
        kitchen__stove="from house.kitchen.sink import water",
        a="from house import b",
        b="if TYPE_CHECKING:\n    import house.c",
        c="from house.a import floor\nfrom house.cellar import wine",
        cellar="",
    )
    assert circles(graph) == [
        ["house.a", "house.b", "house.c"],
        ["house.kitchen.sink", "house.kitchen.stove"],
    ]


def test_a_file_and_its_packages_face_can_form_a_circle(tmp_path):
    graph = tree(tmp_path, hall__door="from house.hall import bell")
    (tmp_path / "house/hall/__init__.py").write_text("from house.hall.door import knock")
    graph = import_graph(tmp_path, ["house"])
    assert circles(graph) == [["house.hall", "house.hall.door"]]
