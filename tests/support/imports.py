"""Imports between the files of a tree: the graph, its cycles, and violations of a layer order."""

import ast
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

# The files imported by each file, such as "espan.images.files" for espan/images/files/__init__.py.
Graph = dict[str, set[str]]


def imports(path: Path) -> list[tuple[str, str | None]]:
    """All imports in a file, including TYPE_CHECKING ones: (module, imported name).

    `import a.b` is ("a.b", None); `from a import b` is ("a", "b"), for a module b or a value b.
    """
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(node.module, alias.name) for alias in node.names]
    return found


def import_graph(root: Path, packages: Sequence[str]) -> Graph:
    """The imports between the files of `packages`, folders of `root`.

    Importing a package counts as importing its __init__.py. The __init__.py of packages that
    contain an imported module does not count.
    """
    paths = {
        _module_of(path.relative_to(root)): path
        for package in packages
        for path in (root / package).rglob("*.py")
    }
    return {
        importer: {_file_of(*each, files=paths) for each in imports(path)} - {importer, None}
        for importer, path in paths.items()
    }


def _module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _file_of(module: str, name: str | None, files: Container[str]) -> str | None:
    """The imported file, or None if it is outside the tree."""
    wanted = [f"{module}.{name}", module] if name else [module]
    return next((each for each in wanted if each in files), None)


def import_cycles(graph: Graph) -> list[list[str]]:
    """Import cycles: strongly connected components, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        path.append(name)
        for each in sorted(graph[name]):
            if each not in order:
                visit(each)
            if each in path:
                lowest[name] = min(lowest[name], lowest[each])
        if lowest[name] == order[name]:
            group = path[path.index(name) :]
            del path[path.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return found


def layer_violations(
    graph: Graph, package: str, layers: Sequence[Sequence[str]]
) -> Iterator[tuple[str, str]]:
    """(importer, imported) for each import of a module of `package` that is not in a lower layer.

    layers: the modules (folders and files directly in the package), the lowest layer first.
    Modules of one layer do not import each other. KeyError for a module without a layer.
    """
    layer = {module: number for number, modules in enumerate(layers) for module in modules}

    def module(name: str) -> str | None:
        top, _, rest = name.partition(".")
        return rest.partition(".")[0] if top == package and rest else None

    for importer, imported in graph.items():
        for each in sorted(imported):
            upper, lower = module(importer), module(each)
            if upper and lower and upper != lower and layer[upper] <= layer[lower]:
                yield importer, each
