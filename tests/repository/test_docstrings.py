"""Docstrings of public names: one sentence, then Args, Returns and Raises where they apply."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator

import pytest

import espan
import espan_kernels

OPS = ("conv3x3", "conv9x9_head", "dct2", "dct_l1", "spab", "span_gate", "tail")


def public() -> Iterator[tuple[str, object]]:
    """Every public name, and the public members of public classes."""
    for package in (espan, espan_kernels):
        for name in package.__all__:
            value = getattr(package, name)
            if not callable(value):
                continue
            yield f"{package.__name__}.{name}", value
            if not inspect.isclass(value):
                continue
            for attribute, member in vars(value).items():
                if attribute == "__call__" or not attribute.startswith("_"):
                    member = getattr(member, "__func__", member)
                    if isinstance(member, property) or inspect.isfunction(member):
                        yield f"{package.__name__}.{name}.{attribute}", member


NAMES = dict(public())
CALLABLES = {name: value for name, value in NAMES.items() if not isinstance(value, property)}


def doc_of(name: str) -> str:
    """The docstring, inherited from the base class if a method has none."""
    value = NAMES[name]
    if not value.__doc__ and "." in name.removeprefix("espan."):
        owner, member = name.rsplit(".", 1)
        return inspect.getdoc(getattr(NAMES[owner], member)) or ""
    return inspect.cleandoc(value.__doc__ or "")


def sections(doc: str) -> dict[str, str]:
    """{heading: the indented text below it}; "" has the text before the first heading."""
    parts = re.split(r"^(Args|Attributes|Returns|Raises):\n", doc, flags=re.M)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert len(found) == len(parts) // 2, "a heading is there twice"
    return {"": parts[0], **{key: textwrap.dedent(value) for key, value in found.items()}}


def entries(section: str) -> set[str]:
    """The names that a section describes: `a, b: text` describes two."""
    named = re.findall(r"^(\w[\w, ]*): \S", section, re.M)
    return {name.strip() for each in named for name in each.split(",")}


def parameters(value: Callable) -> set[str]:
    made_here = inspect.isfunction(value) or "__init__" in vars(value)
    return {*inspect.signature(value).parameters} - {"self", "cls"} if made_here else set()


def raises(value: object) -> bool:
    source = textwrap.dedent(inspect.getsource(value))
    return any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(source)))


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_begins_with_a_sentence_on_one_line(name):
    opening = doc_of(name).split("\n\n")[0]
    assert opening.endswith(".")
    assert "\n" not in opening or name in SECOND_LINE


# Their definitions are expressions of two lines.
SECOND_LINE = {"espan_kernels.spab", "espan_kernels.tail"}


@pytest.mark.parametrize("name", CALLABLES)
def test_every_parameter_is_described(name):
    described = entries(sections(doc_of(name)).get("Args", ""))
    assert described == parameters(CALLABLES[name])


@pytest.mark.parametrize("name", [n for n, v in CALLABLES.items() if inspect.isfunction(v)])
def test_results_are_described(name):
    nothing = inspect.signature(CALLABLES[name]).return_annotation is None
    assert ("Returns" in sections(doc_of(name))) is not nothing


@pytest.mark.parametrize("name", CALLABLES)
def test_errors_are_described(name):
    value = CALLABLES[name]
    if name.endswith(".forward") or (inspect.isclass(value) and issubclass(value, Exception)):
        return
    if raises(value):
        known = entries(sections(doc_of(name))["Raises"])
        assert known and all(each.endswith("Error") for each in known)


@pytest.mark.parametrize("name", OPS)
def test_ops_begin_with_the_expression_they_equal(name):
    assert doc_of(f"espan_kernels.{name}").startswith("`")


@pytest.mark.parametrize("name", [n for n, v in NAMES.items() if inspect.isclass(v)])
def test_described_attributes_exist(name):
    value, described = NAMES[name], entries(sections(doc_of(name)).get("Attributes", ""))
    source = inspect.getsource(value)
    assert all(re.search(rf"\bself\.{each}\b|^    {each}: ", source, re.M) for each in described)
