"""Types of the public names: correct uses type-check, wrong ones are errors."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import fields
from inspect import Parameter, signature
from pathlib import Path

import pytest

import espan
from espan.options import BACKENDS, DTYPES, RUNTIMES, UpscalerKeywords, UpscalerOptions

ROOT = Path(__file__).parents[2]
WRONG = ROOT / "tests/typing/wrong.py"


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[int, str]]:
    """mypy's errors in the examples: {file: {line: errors}}."""
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "tests/typing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, dict[int, str]] = {}
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"(\S+?):(\d+): error: (.*)", line):
            lines = found.setdefault(Path(match[1]).name, {})
            lines[int(match[2])] = lines.get(int(match[2]), "") + match[3]
    return found


def test_correct_uses_have_the_expected_types(errors):
    assert errors.get("usage.py", {}) == {}


def test_wrong_uses_are_clear_errors(errors):
    expected = {}
    for number, line in enumerate(WRONG.read_text().splitlines(), 1):
        if match := re.search(r"# error: \[([\w-]+)\] (.+)$", line):
            expected[number] = match[1], match[2]
    found = errors.get("wrong.py", {})
    assert found.keys() == expected.keys()
    for number, (code, said) in expected.items():
        assert f"[{code}]" in found[number] and said in found[number], found[number]


def test_a_misspelt_keyword_is_named_at_run_time():
    with pytest.raises(TypeError, match="'devise'"):
        espan.Upscaler(devise="cpu")
    with pytest.raises(TypeError, match="'devise'"):
        espan.upscale("a.png", devise="cpu")


def test_tools_and_run_time_have_the_same_names():
    tree = ast.parse((ROOT / "espan/__init__.py").read_text())
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    read = {alias.asname: each.module for each in block.body for alias in each.names}
    assert read == espan._HOME
    assert all(alias.name == alias.asname for each in block.body for alias in each.names)


TAKE_OPTIONS = ("Upscaler", "upscale", "upscale_video", "video_frames", "compare")


@pytest.mark.parametrize("name", TAKE_OPTIONS)
def test_options_are_the_same_in_every_signature(name):
    found = signature(getattr(espan, name)).parameters
    for field in fields(UpscalerOptions):
        if field.name == "nonfinite" and name not in ("Upscaler", "upscale"):
            continue  # image files have no such values
        if field.name == "limits" and name == "compare":
            continue
        parameter = found[field.name]
        assert parameter.kind is Parameter.KEYWORD_ONLY
        assert parameter.annotation == field.type
        own = "fp32" if (name, field.name) == ("compare", "dtype") else field.default
        assert parameter.default == own


def test_options_are_defined_once():
    typed = {field.name: field.type for field in fields(UpscalerOptions)}
    keywords = UpscalerKeywords.__annotations__
    assert {key: getattr(kind, "__forward_arg__", kind) for key, kind in keywords.items()} == typed
    text = {path: path.read_text() for path in (ROOT / "espan").rglob("*.py")}
    for names in (BACKENDS, RUNTIMES, tuple(DTYPES)):
        listed = [p.name for p, t in text.items() if re.search(r'",\s+"'.join(names), t)]
        assert listed in (["options.py"], []), listed


@pytest.mark.parametrize("package", ["espan", "espan_kernels"])
def test_installed_packages_are_marked_as_typed(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    steps = ["egg_info", "-e", folder, "build_py", "-d", folder / "lib"]
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", *steps],
        cwd=ROOT,
        env={**os.environ, "ESPAN_CUDA": "0", "ESPAN_CPU": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "lib" / package / "py.typed").is_file()


def test_ci_checks_types_with_a_pinned_mypy():
    assert re.search(r"^mypy$", (ROOT / ".ci/run").read_text(), re.M)
    assert re.search(r'"mypy==\d+\.\d+\.\d+"', (ROOT / "pyproject.toml").read_text())
