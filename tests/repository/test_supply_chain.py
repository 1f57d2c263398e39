"""Dependencies are listed, and neither the build nor any command downloads anything."""

import ast
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from espan.cli import _parser
from tests.support.makers import TINY_RUN, as_yaml, noise

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 and later read TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def groups(project: dict) -> dict[str, list[str]]:
    """{extra: requirements}, with those of the package itself and of its build."""
    extras = project["project"]["optional-dependencies"]
    every = {
        **extras,
        "always": project["project"]["dependencies"],
        "build": project["build-system"]["requires"],
    }
    # Extras that an extra includes are listed on their own.
    return {
        group: [each for each in some if not each.startswith("espan[")]
        for group, some in every.items()
    }


def test_every_dependency_is_listed_with_its_reason(project):
    listed: dict[str, list[str]] = {}
    page = (ROOT / "docs/deployment.md").read_text()
    for group, package, reason in re.findall(r"^\| (\w+) \| `([^`]+)` \| (.+) \|$", page, re.M):
        assert len(reason) > 8, f"{package}: a reason"
        listed.setdefault(group, []).append(package)
    wanted = {
        group: [re.match(r"[\w.-]+(\[\w+\])?", each)[0] for each in some]
        for group, some in groups(project).items()
        if some
    }
    assert listed == wanted


def test_only_versions_of_tools_have_an_upper_pin(project):
    """A pin could replace an installed torch; pinned tools give everybody the same result."""
    every = [each.split(";")[0] for some in groups(project).values() for each in some]
    pinned = {each.split("==")[0] for each in every if re.search(r"==|~=|<|@", each)}
    assert pinned == {"ruff", "mypy", "codespell"}


BUILD_FILES = [ROOT / "setup.py", ROOT / "espan_kernels/build_info.py"]


@pytest.mark.parametrize("path", BUILD_FILES, ids=lambda path: path.name)
def test_the_build_imports_what_it_declares_and_runs_only_compilers(path, project):
    tree = ast.parse(path.read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    declared = {re.match(r"\w+", each)[0] for each in project["build-system"]["requires"]}
    assert imported - sys.stdlib_module_names <= declared
    fetch = {"urllib", "http", "socket", "ssl", "ftplib", "asyncio", "ctypes", "importlib", "pip"}
    assert not imported & fetch
    words = {
        word.lower()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in re.findall(r"\w+", node.value)
    }
    assert not words & {"git", "curl", "wget", "http", "https", "download", "clone"}
    calls = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "subprocess." in ast.unparse(node.func)
    ]
    assert all(re.match(r"subprocess\.run\(\[?(nvcc|command)\b", call) for call in calls), calls
    assert not re.search(r"os\.(system|exec|popen|spawn)|\beval\(|\bexec\(", path.read_text())


# Ends the process, uncatchably, at the first attempt to reach another machine.
NO_NETWORK = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
                 "socket.sendmsg", "socket.bind", "urllib.Request", "http.client.connect"):
        address = arguments[-1] if event in ("socket.connect", "socket.sendto") else ""
        if isinstance(address, (str, bytes)) and address:
            return  # a local socket with a path
        os.write(2, f"NETWORK: {event} {arguments}\\n".encode())
        os._exit(99)

sys.addaudithook(watch)
"""


@pytest.fixture
def offline(tmp_path) -> dict[str, str]:
    """Environment variables for a Python and its subprocesses without a network or a GPU."""
    folder = tmp_path / "offline"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    return os.environ | {
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "ESPAN_CUDA": "0",
        "ESPAN_CPU": "0",
        "CUDA_VISIBLE_DEVICES": "",
    }


def run(arguments: list[str], environment: dict[str, str], folder: Path = ROOT):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))",
    ],
)
def test_the_network_watcher_works(code, offline):
    assert run(["-c", f"try:\n {code}\nexcept BaseException: pass"], offline).returncode == 99


def test_the_build_fetches_nothing(offline, tmp_path):
    command = ["setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path / "lib")]
    done = run([*command, "--build-temp", str(tmp_path / "temp")], offline)
    assert done.returncode == 0, done.stderr[-2000:]


# {command: arguments with which it works, in a folder with an image}.
COMMANDS = {
    "upscale": ["small.png", "-o", "big.png"],
    "eval": ["--data", "data", "--json"],
    "prepare": ["data", "-o", "tiles", "--tile", "48"],
    "train": ["run.yaml"],
    "export": ["espan-x4", "-o", "net.safetensors"],
    "doctor": ["--json"],
    "compare": ["small.png", "-o", "page.html"],
    "average": ["espan-x4", "espan-x4", "-o", "mean.safetensors"],
    "completion": ["bash"],
}
# Commands for the network: by default the page accepts requests from this machine only.
SERVERS = {"demo"}


def known() -> set[str]:
    (commands,) = (action for action in _parser()._actions if action.choices)
    return {*commands.choices}


def test_every_command_is_covered():
    assert known() - SERVERS <= COMMANDS.keys()


# Third-party programs that may send usage statistics.
OTHERS = {
    "openvino": (["upscale", "small.png", "-o", "b.png", "--backend", "openvino"], ["openvino"]),
    "onnx": (
        ["upscale", "small.png", "-o", "b.png", "--backend", "onnx"],
        ["onnxruntime", "onnxscript"],
    ),
    "pt2": (["export", "espan-x4", "-o", "net.pt2"], []),
}


@pytest.fixture
def desk(tmp_path) -> Path:
    folder = tmp_path / "desk"
    (folder / "data/HR").mkdir(parents=True)
    Image.fromarray(noise(12, 16, 3)).save(folder / "small.png")
    Image.fromarray(noise(48, 48, 3)).save(folder / "data/HR/a.png")
    as_yaml(folder / "run.yaml", **TINY_RUN, data="tiles", out="run")
    return folder


def test_no_command_uses_the_network(offline, desk):
    lines = [[name, *rest] for name, rest in COMMANDS.items() if name in known()]
    for line, packages in OTHERS.values():
        if all(find_spec(each) for each in packages):
            lines.append(line)
    code = """
import json, sys
import espan
from espan.cli import main
for line in json.loads(sys.argv[1]):
    print(line, main(line), file=sys.stderr, flush=True)
"""
    done = run(["-c", code, json.dumps(lines)], offline, desk)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line for line in lines if f"{line} 0\n" not in done.stderr] == []
