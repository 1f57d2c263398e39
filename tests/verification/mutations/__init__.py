"""Plants bugs in a copy of the tree, one at a time, and checks that the named test fails for each.

`python -m tests.verification.mutations` plants all of them, which takes some minutes; `--count`
limits them to the first of each list.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
# Tests that plant bugs in csrc themselves, in the host build, and pass if they show.
IN_CUDA = [
    "tests/kernels/test_shim.py",
    "tests/kernels/test_shim_ends.py",
    "tests/kernels/test_shim_dct.py",
]
PASSED, FAILED = 0, 1  # pytest's exit codes; with others, no test finished
# Time limit of a test in seconds, far more than any needs to pass.
PATIENCE = 600


class Mutation(NamedTuple):
    """Replaces `old`, found once in `file`, by `new`; then `test`, a pytest id, must fail."""

    promise: str
    file: str
    old: str
    new: str
    test: str


class SurvivedError(AssertionError):
    """A bug that no test found, or a test that fails without a bug."""


def plant(mutations: Iterable[Mutation], tell: Callable[[str], None] = str) -> dict[str, int]:
    """{"planted": ..., "caught": ...}; SurvivedError names those that were not caught.

    `tell` is called with a line for each.
    """
    mutations = [*mutations]
    with tempfile.TemporaryDirectory() as folder:
        tree = _copy(Path(folder) / ROOT.name)
        tests = [*dict.fromkeys(one.test for one in mutations)]
        if (code := _pytest(tree, *tests).returncode) != PASSED:
            raise SurvivedError(f"without any bug the tests end with {code}: {' '.join(tests)}")
        survived = []
        for one in mutations:
            caught = _caught(tree, one)
            tell(f"{'caught' if caught else 'NOT CAUGHT'}: {one.promise}")
            if not caught:
                survived.append(one)
    if survived:
        lines = (f"{one.promise}: {one.file}: {one.old!r} -> {one.new!r}" for one in survived)
        raise SurvivedError("\n".join(lines))
    return {"planted": len(mutations), "caught": len(mutations)}


def plant_in_cuda(count: int | None = None) -> dict[str, int]:
    """The same for the bugs that tests plant in csrc themselves, all or the first `count`."""
    listed = _pytest(ROOT, *IN_CUDA, "-k", "planted", "--collect-only").stdout
    names = re.findall(r"^tests/.+::.+$", listed, re.MULTILINE)[:count]
    if not names:
        raise SurvivedError(f"no test plants bugs: {listed[-2000:]}")
    found = _pytest(ROOT, *names)
    passed = re.search(r"(\d+) passed", found.stdout)
    if found.returncode != PASSED:
        raise SurvivedError(found.stdout[-2000:])
    return {"planted": len(names), "caught": int(passed[1])}


def _copy(to: Path) -> Path:
    """Copies the files that git does not ignore, including changes and new files."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def _caught(tree: Path, mutation: Mutation) -> bool:
    path = tree / mutation.file
    text = path.read_text()
    if (times := text.count(mutation.old)) != 1:
        raise SurvivedError(f"{mutation.file} has {times} times {mutation.old!r}")
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        code = _pytest(tree, mutation.test).returncode
    except subprocess.TimeoutExpired:
        code = FAILED
    finally:
        path.write_text(text)
    return code == FAILED or code < 0  # a crashed process has not passed either


def _pytest(tree: Path, *arguments: str) -> subprocess.CompletedProcess:
    shared = os.environ.get("ESPAN_SHARED", str(ROOT.parent / "shared"))
    # No bytecode: it would be stale after two changes of equal length within a second.
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["ESPAN_SHARED"] = shared
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider"]
    command += arguments if "--collect-only" in arguments else ("-x", *arguments)
    # Tests of file names print invalid UTF-8.
    how = {
        "capture_output": True,
        "text": True,
        "errors": "replace",
        "timeout": PATIENCE * max(1, len(arguments)),
    }
    return subprocess.run(command, cwd=tree, env=environment, **how)
