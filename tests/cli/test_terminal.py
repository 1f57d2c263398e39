"""What a terminal is given: names of files and tensors do nothing to it."""

import json
import logging
import os
import re

import pytest
import torch
from PIL import Image

from espan import InputError, OutputError, WeightsError, load
from espan.cli import main
from espan.errors import escaped
from espan.images import files
from tests.support.makers import noise
from tests.support.original_span import OriginalSPAN

# Red, bold title, a line of its own, a line back, right to left, a byte that is no UTF-8.
EVIL = "a\x1b[31m\x1b]0;title\x07\nespan: 99 of 99 failed\r\x9b\u202eb" + os.fsdecode(b"\xff")
SHOWN = r"a\x1b[31m\x1b]0;title\x07\nespan: 99 of 99 failed\r\x9b\u202eb\xff"


def harmless(text: str) -> bool:
    """Whether a terminal finds nothing in it but lines."""
    return not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]", text)


def test_escaped():
    assert escaped(EVIL) == SHOWN and harmless(SHOWN)
    assert escaped(SHOWN) == SHOWN  # twice is once
    plain = "C:\\new folder\\Zażółć 写真 \u202f 👩‍🚀.png"
    assert escaped(plain) == plain


@pytest.mark.parametrize("kind", [InputError, OutputError, WeightsError])
def test_errors_are_one_line(kind):
    assert str(kind(f"{EVIL}: no\nsuch")) == f"{SHOWN}: no\\nsuch"
    assert str(kind(f"b: {kind(EVIL)}")) == f"b: {SHOWN}"


def test_the_log_is_one_line(caplog):
    logging.getLogger("espan").warning("%s: 100 %% of %d", EVIL, 3)
    assert caplog.messages == [f"{SHOWN}: 100 % of 3"]


@pytest.fixture
def evil(tmp_path):
    """A folder with a picture of this name, and a damaged one of a name alike."""
    folder = tmp_path / "in"
    folder.mkdir()
    files.write(tmp_path / "a.png", Image.fromarray(noise(48, 48, 3)))
    (tmp_path / "a.png").rename(folder / f"{EVIL}.png")
    (folder / f"{EVIL}2.png").write_bytes(b"no picture")
    return folder


def test_upscale(evil, upscale, capsys):
    out = evil.parent / "out"
    assert upscale(evil, "-o", out, "--json") == 1
    shown = capsys.readouterr()
    assert harmless(shown.err) and shown.err.count("\n") == 3
    assert f"espan: {evil}/{SHOWN}2.png: not an image" in shown.err.splitlines()[-2]
    assert shown.err.count(f"{SHOWN}2.png") == 1  # named once
    assert harmless(shown.out)
    bad, good = sorted(json.loads(shown.out), key=lambda row: row["status"], reverse=True)
    # Names as data are exact, JSON has escapes of its own; the error is text for people.
    assert good["input"] == f"{evil}/{EVIL}.png" and (out / f"{EVIL}.png").is_file()
    assert bad["error"].startswith(f"{evil}/{SHOWN}2.png: not an image")
    assert upscale(evil / f"{EVIL}.png", "-o", out, "--skip-existing") == 0
    said = capsys.readouterr().err
    assert harmless(said) and SHOWN in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["upscale", EVIL, "--device=cpu"],
        ["upscale", "in", "-n", EVIL],
        ["upscale", f"in/{EVIL}.png", "-o", f"{EVIL}.gif", "--device=cpu"],
        ["eval", "--data", EVIL, "--bicubic"],
        ["eval", "--data", "in", "--bicubic"],
        ["prepare", "in", "-o", EVIL],
        ["prepare", EVIL, "-o", "p"],
        ["export", EVIL, "-o", "a.onnx"],
        ["compare", f"in/{EVIL}.png", "-o", f"{EVIL}.html", "--device=cpu", "-n", "espan-x2"],
        ["compare", f"in/{EVIL}.png", "-o", "a.png", "--device=cpu", "-n", "espan-x2"],
        ["train", EVIL],
        ["train", "a.yaml", EVIL],
    ],
    ids=lambda arguments: " ".join(arguments).replace(EVIL, "EVIL"),
)
def test_every_command(evil, monkeypatch, capfd, arguments):
    monkeypatch.chdir(evil.parent)
    (evil.parent / "a.yaml").write_text("{}")
    main(arguments)
    shown = capfd.readouterr()
    assert harmless(shown.out) and harmless(shown.err) and "Traceback" not in shown.err


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["upscale", "a.png", f"--{EVIL.replace(' ', '')}"])
    said = capsys.readouterr().err
    assert harmless(said) and SHOWN.replace(" ", "") in said


def test_tensors(tmp_path):
    state = OriginalSPAN(8, 2).state_dict()
    torch.save(state | {EVIL[:-1]: torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as caught:
        load(tmp_path / "a.pth")
    assert harmless(str(caught.value)) and SHOWN[:20] in str(caught.value)
