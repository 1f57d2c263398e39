"""Replaced terms stay out of code, documents and messages, and spelling is checked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A pattern, and the words to use instead.
REPLACED = {
    r"half[ _]sums?": "fp16 accumulation",
    r"as of\b(?! \d)": "like, same as",
    r"by turns": "in turn, alternately",
    r"shall": "must, will",
    r"who(ever|m)?": "that, which; name the thing",
    r"(no|some)body": "nothing, no caller; name the thing",
    r"anew": "again",
    r"pictures?": "image",
    r"rate_at": "lr_multiplier",
    r"owe[sd]?": "must, requires",
    r"half the time": "half of the time",
}
# Text that this project writes.
SUFFIXES = {".py", ".md", ".cu", ".cuh", ".h", ".cpp", ".js", ".html", ".css", ".yaml", ".toml"}
# Files that list such words, and names that users and recorded files rely on.
LISTS = {"tests/repository/test_words.py"}
KEPT = re.compile(
    r"picture\.md|bench: pictures|ESPAN_HALF_SUMS|pictures\.bin|pictures/|NOBODY"
    r"|nobody\b(?=\.py| import)"
    r"|picture to picture|(first|second) picture|InputError 5 / picture|groups of pictures"
    r"""|["']pictures?["']|\bpictures?\.png"""
)


def texts() -> list[Path]:
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = listed.stdout.splitlines()
    return [ROOT / name for name in names if Path(name).suffix in SUFFIXES and name not in LISTS]


@pytest.mark.parametrize("word", REPLACED)
def test_replaced_words_stay_out(word):
    pattern = re.compile(rf"(?<![\w.]){word}(?!\w)", re.I)
    found = []
    for path in texts():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if pattern.search(KEPT.sub("", line)):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, f"write {REPLACED[word]!r}:\n" + "\n".join(found)


def test_spelling():
    pytest.importorskip("codespell_lib")
    command = [sys.executable, "-m", "codespell_lib", *map(str, texts())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
