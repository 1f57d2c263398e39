"""The source distribution is complete, and wheels built from it work in every Python.

No downloads: the setuptools of this environment builds in every Python, and the parts of a wheel
that are tested need no dependencies.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import espan
from espan.training import recipes

ROOT = Path(__file__).parents[2]
PYTHONS = [f"3.{minor}" for minor in range(10, 15)]
LEFT_BEHIND = shutil.ignore_patterns(
    *(".git", ".venv", "build", "dist", "runs", "*.egg-info", "*.so", "*.py[cod]", "__pycache__"),
    *(".*_cache", ".hypothesis", "cuda_left_out.txt"),
)
PACKED = ("bench", "configs", "csrc", "docs", "espan", "espan_kernels", "tests")


def python(version: str) -> str | None:
    """A working interpreter of that version: this one, one on PATH, or one of pyenv."""
    if version == f"3.{sys.version_info[1]}":
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")]
    for each in filter(None, found):
        ask = [each, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(ask, capture_output=True, text=True).stdout.strip() == version:
            return str(each)
    return None


@pytest.fixture(scope="module")
def tools(tmp_path_factory) -> Path:
    """A folder with setuptools only, for interpreters without it."""
    spec = importlib.util.find_spec("setuptools")
    if spec is None:
        pytest.skip("setuptools is not installed")
    folder = tmp_path_factory.mktemp("tools")
    for path in Path(spec.origin).parents[1].iterdir():
        if path.name.startswith(("setuptools", "_distutils_hack", "pkg_resources")):
            (folder / path.name).symlink_to(path)
    return folder


def run(command: list[str], folder: Path, **variables: str) -> str:
    environment = {**os.environ, "ESPAN_CUDA": "0", "ESPAN_CPU": "0", **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def build(what: str, interpreter: str, source: Path, tools: Path, out: Path) -> Path:
    """The sdist or wheel that the build backend makes from a folder."""
    code = f"import sys; from setuptools import build_meta as b; b.build_{what}(sys.argv[1])"
    run([interpreter, "-c", code, str(out)], source, PYTHONPATH=str(tools))
    (made,) = (path for path in out.iterdir() if path.name.startswith("espan-"))
    return made


@pytest.fixture(scope="module")
def sdist(tools, tmp_path_factory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "tree", ignore=LEFT_BEHIND)
    made = build("sdist", sys.executable, folder / "tree", tools, folder)
    with tarfile.open(made) as archive:
        archive.extractall(folder / "out", filter="data")
    return folder / "out" / f"espan-{espan.__version__}"


def files_in(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.parts[0] in PACKED}


def test_the_source_distribution_has_every_file(sdist):
    tree = sdist.parents[1] / "tree"
    assert files_in(tree) - files_in(sdist) == set()
    assert (sdist / ".ci/run").is_file() and (sdist / "tests/support/makers.py").is_file()
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py", "MANIFEST.in"):
        assert (sdist / name).read_bytes() == (tree / name).read_bytes()


def test_the_source_distribution_has_no_build_outputs(sdist):
    assert not [p for p in sdist.rglob("*") if p.suffix in (".pyc", ".so") or "cache" in p.name]


TRY = """
import espan, sys
from espan.cli import main
from espan.training import recipes
assert espan.__file__.startswith(sys.argv[1]), espan.__file__
print(espan.__version__, *recipes.names())
for line in (["train", "--help"], ["--version"]):
    try:
        main(line)
    except SystemExit as end:
        assert not end.code
"""


@pytest.mark.parametrize("version", PYTHONS)
def test_a_wheel_from_the_source_distribution_works(version, sdist, tools, tmp_path):
    interpreter = python(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} here")
    source = shutil.copytree(sdist, tmp_path / "source")
    wheel = build("wheel", interpreter, source, tools, tmp_path)
    assert f"-cp{version.replace('.', '')}-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names}
    assert tops == {"espan", "espan_kernels", f"espan-{espan.__version__}.dist-info"}
    assert {f"espan/configs/{name}.yaml" for name in recipes.names()} <= {*names}
    assert "espan/builtin/espan_x4.safetensors" in names and "espan/pages/demo.html" in names
    site = str(tmp_path / "site")
    # -S: without the packages of this environment.
    printed = run([interpreter, "-S", "-c", TRY, site], tmp_path, PYTHONPATH=site)
    assert printed.split("\n")[0].split() == [espan.__version__, *recipes.names()]


def test_every_claimed_python_is_tested():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 and later read TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: 3."
    claimed = {each.removeprefix(prefix) for each in project["classifiers"] if prefix in each}
    assert claimed and {f"3.{minor}" for minor in claimed} <= {*PYTHONS}
    assert project["requires-python"] == f">={PYTHONS[0]}"
