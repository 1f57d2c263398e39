"""Every command and every Python example in the documents works.

Commands run in a folder with images, a video and weights, page by page. Commands that cannot run
here are listed with the reason and a replacement; tests check their settings and options.
"""

import importlib.util
import re
import sys
from typing import NamedTuple

import pytest

from espan.training.config import read_config
from tests.support.documents import FENCE, PAGES, ROOT, commands, fences, run, words

# Modules that the commands of a page need beyond the package itself.
NEEDS = {
    "video.md": ["av"],
    "picture.md": ["tifffile", "pillow_heif"],
    "folder.md": ["ray"],
    "deployment.md": ["onnx", "onnxscript", "onnxruntime", "openvino"],
    "training.md": ["yaml", "lightning_fabric"],
}


# Words in commands of the README, which uses all extras, and the modules they need.
EXTRAS = {
    ".mp4": ["av"],
    ".onnx": ["onnx", "onnxscript", "onnxruntime"],
    "openvino": ["openvino"],
    "train": ["yaml", "lightning_fabric"],
}


class Left(NamedTuple):
    """Commands that are not run here; `instead`: a test that covers them, or a smaller command."""

    pattern: str
    why: str
    instead: str


VERIFICATION, BENCH = "python -m tests.verification", "python bench"
LEFT = [
    Left(r"([A-Z_]+=\S+ )?pip .*", "installs", ".ci/run"),
    Left(r"python -m pytest( -m compile .*| -n .*)?", "the tests themselves", ".ci/run"),
    Left(r"(python -m )?pytest -m gpu", "needs a GPU", "tests/verification/gpu_suite.py"),
    Left(rf"{VERIFICATION}.gpu_suite", "needs a GPU", "tests/verification/test_sanitize.py"),
    Left(rf"{VERIFICATION}.sanitize", "needs a GPU", "tests/verification/test_sanitize.py"),
    Left(rf"{VERIFICATION}.reliability.*", "6 min", "tests/verification/test_reliability.py"),
    Left(rf"{VERIFICATION}.everyday", "4 min", "tests/evaluation/test_everyday.py"),
    Left(rf"{VERIFICATION}.host_calls", "30 s", "tests/verification/test_host_calls.py"),
    Left(
        rf"{VERIFICATION}.same_results .*",
        "needs a second checkout",
        "tests/verification/test_same_results.py",
    ),
    Left(rf"{VERIFICATION}.giant --check", "minutes", f"{VERIFICATION}.giant --megapixels 2"),
    Left(r"python -m tests.support.storm .*", "minutes", "tests/demo/test_demo_limits.py"),
    Left(
        r"python -m tests.support.compile_cuda .*",
        "compiles every kernel",
        "tests/kernels/test_csrc.py",
    ),
    Left(
        r"python -m tests.support.compile_triton .*",
        "compiles every kernel",
        "tests/kernels/test_compile_triton.py",
    ),
    Left(rf"{BENCH}/(run|hot|train_step).py.*", "minutes", "tests/bench/test_bench.py"),
    Left(rf"{BENCH}/plot.py", "writes into the documents", "tests/bench/test_bench_records.py"),
    Left(rf"{BENCH}/video.py", "minutes", "tests/bench/test_bench_host.py"),
    Left(rf"{BENCH}/animation.py", "minutes", "tests/bench/test_bench_host.py"),
    Left(rf"{BENCH}/batch.py", "minutes", "tests/batch/test_batch.py"),
    Left(rf"{BENCH}/cost_model.py.*", "compiles every kernel", "tests/kernels/test_csrc.py"),
    Left(rf"{BENCH}/wgmma.py FILE", "needs a GPU's record", "tests/bench/test_wgmma.py"),
    Left(r"espan demo", "serves until it is stopped", "tests/demo/test_demo.py"),
    Left(r"ray start", "leaves a daemon behind", "tests/batch/test_ray.py"),
    Left(r"torchrun .*", "needs several GPUs", "tests/training/test_processes.py"),
    Left(r"espan train (?!smoke).*", "hours", "tests/training/test_train.py"),
]
# Pages that quote passages of a source file.
PASSAGES = {"ops.md": ROOT / "espan_kernels/conv3x3/__init__.py"}
# Python that needs an unavailable package, and the test that replaces the package by a stub.
WITH_STUB = {"deployment.md": ("register_spandrel()", ROOT / "tests/checkpoints/test_spandrel.py")}
PYTHON = [p for p in PAGES if fences(p, "python") and p.name not in {**PASSAGES, **WITH_STUB}]
DONE: set[str] = set()


def left(command: str) -> Left | None:
    """The entry of a command that is not run here, or None."""
    return next((each for each in LEFT if re.fullmatch(each.pattern, command)), None)


def skip_without_extras(page) -> None:
    for module in NEEDS.get(page.name, ()):
        pytest.importorskip(module, reason=f"{module} is not installed")


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.name)
def test_commands_work(page, desk):
    wanted = [each for each in commands(page) if each not in DONE and not left(each)]
    if wanted:
        skip_without_extras(page)
    for command in wanted:
        if page.name != "README.md" or has_extras(command):
            run(command, desk)
            DONE.add(command)


def has_extras(command: str) -> bool:
    """Whether the extras that a command of the README needs are installed."""
    needed = [module for word, modules in EXTRAS.items() if word in command for module in modules]
    return all(importlib.util.find_spec(module) for module in needed)


@pytest.mark.parametrize("page", PYTHON, ids=lambda p: p.name)
def test_python_works(page, desk):
    skip_without_extras(page)
    before = "import torch, espan, PIL.Image\nimg = PIL.Image.open('photo.jpg')\n"
    run([sys.executable, "-c", before + "\n".join(fences(page, "python"))], desk)


@pytest.mark.parametrize("name", PASSAGES)
def test_passages_are_in_the_source(name):
    source = "".join(PASSAGES[name].read_text().split())
    for passage in fences(ROOT / "docs" / name, "python"):
        assert "".join(passage.split()) in source


@pytest.mark.parametrize("name", WITH_STUB)
def test_python_with_a_stub_is_called_in_its_test(name):
    call, test = WITH_STUB[name]
    (passage,) = fences(ROOT / "docs" / name, "python")
    assert call in passage and call in test.read_text()


def test_every_fence_has_a_language():
    for page in PAGES:
        kinds = {kind for kind, _ in FENCE.findall(page.read_text())}
        assert kinds <= {"sh", "python", "text"}, page.name


EVERY = sorted({command for page in PAGES for command in commands(page)})


@pytest.mark.parametrize("each", LEFT, ids=lambda each: each.pattern)
def test_commands_left_out_are_documented_and_covered_elsewhere(each, desk):
    found = [command for command in EVERY if re.fullmatch(each.pattern, command)]
    assert found and each.why
    if each.instead.startswith("python "):
        run(each.instead, desk)
        return
    text = (ROOT / each.instead).read_text()
    for command in found:
        if match := re.search(r"(?:tests\.\w+\.|bench/)(\w+)", command):
            assert re.search(rf"\b{match[1]}\b", text), f"{each.instead} does not name {match[1]}"


def trainings() -> list[str]:
    """Every training in the documents, by `espan train` or torchrun."""
    return [each for each in EVERY if re.match(r"espan train|torchrun .*espan\.cli train", each)]


@pytest.mark.parametrize("command", trainings())
def test_trainings_have_known_settings(command, monkeypatch):
    pytest.importorskip("yaml")
    monkeypatch.chdir(ROOT)
    parts = words(command)
    config, *overrides = parts[parts.index("train") + 1 :]
    read_config(config, overrides)


def programs() -> list[tuple[str, list[str]]]:
    """The Python programs left out, each with its options in the documents."""
    found: dict[str, list[str]] = {}
    for command in filter(left, EVERY):
        if match := re.match(r"python (?:-m (tests[\w.]+)|(bench/\w+\.py))", command):
            options = [word for word in words(command) if re.match(r"--\w", word)]
            found.setdefault(match[1] or match[2], []).extend(options)
    return sorted(found.items())


@pytest.mark.parametrize(("program", "options"), programs(), ids=lambda x: x if x == str(x) else "")
def test_programs_left_out_have_the_documented_options(program, options, desk):
    if program.startswith("bench/"):
        assert (ROOT / program).is_file()
    else:
        assert importlib.util.find_spec(program)
    if options:
        start = program if program.startswith("bench/") else f"-m {program}"
        shown = run(f"python {start} --help", desk)
        assert not [option for option in options if option not in shown]


def test_wrong_commands_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`espan upscale -n` and `espan upscale` are names, `espan upscale --widht` is not.\n"
        "```sh\nespan upscael a.png  # wrong\nA=1 espan doctor && pip install x\n```\n"
    )
    assert commands(page) == [
        "espan upscael a.png",
        "A=1 espan doctor",
        "pip install x",
        "espan upscale --widht",
    ]
    assert [bool(left(each)) for each in commands(page)] == [False, False, True, False]
