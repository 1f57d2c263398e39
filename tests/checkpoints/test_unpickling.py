"""No code in the tree unpickles, or otherwise runs code from files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Functions that can run code from a data file, by full name.
UNSAFE = {
    *(f"{module}.{name}" for module in ("pickle", "_pickle", "cPickle", "dill", "cloudpickle",
                                        "joblib", "marshal") for name in ("load", "loads")),
    "pickle.Unpickler", "shelve.open", "pandas.read_pickle", "torch.hub.load",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "eval", "exec",
}  # fmt: skip


def unsafe_calls(text: str) -> list[str]:
    """The calls in a Python file that could run code from a data file."""
    tree, names, found = ast.parse(text), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, *rest = ast.unparse(node.func).split(".")
        name = ".".join([names.get(first, first), *rest])
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        loads_code = {
            "torch.load": given.get("weights_only") != "True",
            "numpy.load": given.get("allow_pickle", "False") != "False",
        }
        if name in UNSAFE or loads_code.get(name):
            found.append(name)
    return found


def test_nothing_in_the_tree_unpickles():
    files = [ROOT / "setup.py"]
    for package in ("espan", "espan_kernels", "bench", "tests"):
        files += (ROOT / package).rglob("*.py")
    assert len(files) > 150
    assert {str(f): calls for f in files if (calls := unsafe_calls(f.read_text()))} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle; pickle.load(f)",
        "import pickle as p; p.loads(b)",
        "from pickle import loads; loads(b)",
        "import torch; torch.load(p)",
        "from torch import load; load(p, weights_only=False)",
        "import numpy as np; np.load(p, allow_pickle=True)",
        "import yaml; yaml.load(t)",
        "import shelve; shelve.open(p)",
        "eval(text)",
    ],
)
def test_what_unpickles_would_be_found(code):
    assert unsafe_calls(code)
    assert not unsafe_calls("import torch; torch.load(p, weights_only=True); m.eval()")
