"""Finds repeated runs of lines in a tree of Python files."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

# The number of code lines in a run.
LONG = 6


def repeated(paths: Iterable[Path], long: int = LONG) -> list[str]:
    """ "file:line ~ file:line" of the first of `long` equal lines that stand in two places.

    Lines of code count, with white space at their ends left out. No code, for this purpose: blank
    lines, comments, docstrings, imports, lines of brackets alone, and argument lists: signatures,
    which all implementations of an interface have, and launches of Triton's kernels, which take no
    structs.
    """
    seen: dict[tuple[str, ...], str] = {}
    found = []
    for path in paths:
        lines = [*code(path.read_text())]
        fresh = True  # report only the start of a longer run
        for i in range(len(lines) - long + 1):
            run = tuple(text for _, text in lines[i : i + long])
            place = f"{path}:{lines[i][0]}"
            first = seen.setdefault(run, place)
            if first != place and fresh:
                found.append(f"{first} ~ {place}")
            fresh = first == place
    return found


def code(source: str) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines of code."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_docstring(node):
            left_out |= {*range(node.lineno, node.end_lineno + 1)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):  # a Triton launch
            left_out |= {*range(node.lineno, node.end_lineno + 1)}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            left_out |= {*range(node.lineno, node.body[0].lineno)}
            if _is_signature(node):
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                left_out |= {*range(first, node.end_lineno + 1)}
    for number, line in enumerate(source.splitlines(), 1):
        text = line.strip()
        if number not in left_out and not text.startswith("#") and re.search(r"\w", text):
            yield number, text


def _is_signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the function has no body, like an overload."""
    return ast.unparse(node.body[-1]) == "..."


def _is_docstring(node: ast.AST) -> bool:
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant and isinstance(node.value.value, str)
