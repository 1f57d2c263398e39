"""`python -m tests.support.architecture`: draws the modules of espan, from their imports.

The drawing is docs/images/architecture.svg. tests/repository/test_order.py checks that it is
current.
"""

from html import escape
from pathlib import Path

from tests.support.imports import import_graph

ROOT = Path(__file__).parents[2]
DRAWING = ROOT / "docs/images/architecture.svg"
PACKAGES = ("espan_kernels", "espan", "bench", "tests")
# The modules of `espan`, lowest layer first. A module imports from lower layers only.
LAYERS = (
    ("errors",),
    ("sizes",),
    ("options",),
    ("system",),
    ("networks", "images"),
    ("checkpoints", "backends"),
    ("execution",),
    ("upscaler",),
    ("shortcut",),
    ("evaluation",),  # training validates with it
    ("animation",),
    ("exporting", "training", "batch", "video"),
    ("comparison", "demo"),
    ("cli",),
)
Edges = set[tuple[str, str]]
BOX, COLUMN, ROW, MARGIN = (110, 28), 132, 58, 16  # pixels: (width, height), pitches, edge
# Where each module stands, so that no line passes behind another box.
COLUMNS = {
    **{"cli": 2.5, "batch": 0, "demo": 1, "video": 2, "exporting": 3, "comparison": 4},
    **{"training": 5, "animation": 0.5, "shortcut": 1, "evaluation": 5.5, "upscaler": 2},
    **{"execution": 2, "backends": 1, "checkpoints": 3, "networks": 1.5, "images": 4.5},
    **{"espan_kernels": 0.5, "csrc": 0.5, "system": 2.5, "sizes": 3.6, "options": 2.5, "errors": 3},
}


def module_edges() -> Edges:
    """(importer, imported) among `espan`'s modules, `espan_kernels` and `csrc`."""
    edges: Edges = {("espan_kernels", "csrc")}
    for importer, imported in import_graph(ROOT, PACKAGES).items():
        upper = _module(importer)
        for each in imported:
            lower = _module(each)
            if upper and lower and upper != lower:
                edges.add((upper, lower))
    return edges


def _module(name: str) -> str | None:
    package, *rest = name.split(".")
    if package == "espan_kernels":
        return package
    return rest[0] if package == "espan" and rest else None


def reduced(edges: Edges) -> Edges:
    """The fewest edges with the same reachability: an import that others imply is not drawn."""
    below: dict[str, set[str]] = {}
    for upper, lower in edges:
        below.setdefault(upper, set()).add(lower)

    def reaches(start: str, goal: str) -> bool:
        return any(each == goal or reaches(each, goal) for each in below.get(start, ()))

    return {
        (upper, lower)
        for upper, lower in edges
        if not any(reaches(each, lower) for each in below[upper] - {lower})
    }


def depths(edges: Edges) -> dict[str, int]:
    """The row of each module, 0 on top: one below the lowest module that imports it."""
    importers: dict[str, set[str]] = {}
    for upper, lower in edges:
        importers.setdefault(upper, set())
        importers.setdefault(lower, set()).add(upper)

    def depth(name: str) -> int:
        return 1 + max(map(depth, importers[name]), default=-1)

    return {name: depth(name) for name in importers}


def draw() -> str:
    """The drawing as SVG text: a module imports those below it that a line leads to."""
    edges = reduced(module_edges())
    corners = {
        name: (MARGIN + COLUMNS[name] * COLUMN, MARGIN + row * ROW)
        for name, row in sorted(depths(edges).items())
    }
    width = 2 * MARGIN + max(COLUMNS.values()) * COLUMN + BOX[0]
    height = MARGIN + BOX[1] + max(y for _, y in corners.values())
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" '
            'font-family="sans-serif" font-size="13">',
            f'<rect width="{width:g}" height="{height}" fill="#ffffff"/>',
            *(_line(corners[upper], corners[lower]) for upper, lower in sorted(edges)),
            *(_box(name, *corner) for name, corner in corners.items()),
            "</svg>\n",
        ]
    )


def _line(upper: tuple[float, float], lower: tuple[float, float]) -> str:
    x, y, to_x, to_y = upper[0] + BOX[0] / 2, upper[1] + BOX[1], lower[0] + BOX[0] / 2, lower[1]
    bend = (to_y - y) / 2
    path = f"M{x:g} {y:g} C{x} {y + bend:g} {to_x} {to_y - bend:g} {to_x:g} {to_y:g}"
    return f'<path d="{path}" stroke="#8899aa" stroke-width="1.3" fill="none"/>'


def _box(name: str, x: float, y: float) -> str:
    return (
        f'<rect x="{x:g}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="#eef3f8" '
        f'stroke="#446688"/><text x="{x + BOX[0] / 2:g}" y="{y + 20}" text-anchor="middle">'
        f"{escape(name)}</text>"
    )


if __name__ == "__main__":
    DRAWING.write_text(draw())
