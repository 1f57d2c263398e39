"""No six equal lines of code occur twice, outside tables of samples and tests."""

from pathlib import Path

from tests.support.duplicates import LONG, repeated

ROOT = Path(__file__).parents[2]
PACKAGES = ("espan", "espan_kernels", "bench", "tests/support", "tests/verification")


def test_no_six_lines_occur_twice(monkeypatch):
    monkeypatch.chdir(ROOT)
    paths = sorted(path for package in PACKAGES for path in Path(package).rglob("*.py"))
    tables = ("sample.py", "test_*.py")
    assert repeated(path for path in paths if not any(map(path.match, tables))) == []


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


BODY = [f"x{i} = f({i})" for i in range(LONG)]


def test_a_run_in_two_files_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = write(Path("one.py"), "import a", *BODY, "y = 1")
    inside = [f"    {line}" for line in BODY]
    mixed = ["", *inside[:3], "    # why", *inside[3:], "    z = 2"]
    two = write(Path("two.py"), "def f(x):", '    """What."""', *mixed)
    assert repeated([one, two]) == ["one.py:2 ~ two.py:4"]


def test_a_run_twice_in_one_file_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repeated([write(Path("one.py"), *BODY, "y = 1", *BODY)]) == ["one.py:1 ~ one.py:8"]


def test_a_longer_run_is_reported_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = [*BODY, *(f"y{i} = g({i})" for i in range(4))]
    assert len(repeated([write(Path(name), *more) for name in ("one.py", "two.py")])) == 1


def test_shorter_runs_imports_and_argument_lists_are_allowed(tmp_path):
    signature = ["def f(", *(f"    a{i}: int," for i in range(LONG)), ") -> int:"]
    shared = ["import a, b", *signature, '    """What it is,', "    in words."]
    files = [
        write(tmp_path / f"{name}.py", *shared, f'    {name}."""', *(f"    {b}" for b in BODY[1:]))
        for name in ("one", "two")
    ]
    assert repeated(files) == []


def test_launches_of_triton_kernels_are_allowed_and_other_calls_are_not(tmp_path):
    arguments = [f"    a{i}," for i in range(LONG)]
    launches, calls = (
        [write(tmp_path / f"{name}{i}.py", f"{name}(", *arguments, ")") for i in range(2)]
        for name in ("kernel[grid]", "call")
    )
    assert repeated(launches) == [] and len(repeated(calls)) == 1
