"""Runs that are killed, interrupted, abandoned by their program, or forked.

tests/verification/kills.py does the same for longer.
"""

import os
import signal
import subprocess
import sys

import pytest
from PIL import Image

from espan.cli import main
from espan.images import files
from tests.support.makers import noise, python
from tests.verification.kills import PROMPT, WORKERS, interrupts, kills

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork, no kill -9")


def test_kill_leaves_whole_files_and_the_next_run_goes_on():
    found = kills(12, seed=1)
    assert found.pop("kills") == 12
    assert found["half_files"] == found["leftovers"] == 0
    assert found["repeated_at_most"] <= found["in_flight"] == WORKERS


def test_interrupts_end_promptly_and_leave_whole_files():
    found = interrupts(6, seed=1)
    assert found.pop("said") == ""
    assert found.pop("slowest") < PROMPT
    assert found == {"interrupts": 6} | dict.fromkeys([*found][1:], 0)


def test_an_interrupt_that_a_library_makes_another_error_of_is_one(monkeypatch, capsys):
    def misread(*_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ValueError("no such thing") from error

    monkeypatch.setattr("espan.upscaler.load", misread)
    assert main(["upscale", "--device=cpu", "a.png"]) == 130
    assert capsys.readouterr().err == "espan: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_waits_for_pytorch_to_be_imported():
    code = """
import builtins, signal, sys
imports = builtins.__import__
def interrupted(name, *rest):
    if name == "torch":
        builtins.__import__ = imports
        signal.raise_signal(signal.SIGINT)
    return imports(name, *rest)
builtins.__import__ = interrupted
from espan.cli import main
code = main(["upscale", "--device=cpu", "a.png"])
assert "torch" in sys.modules
sys.exit(code)
"""
    done = python(code)
    assert (done.returncode, done.stderr) == (130, "espan: interrupted\n")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(40):
        files.write(tmp_path / f"in/{i:02}.png", Image.fromarray(noise(48, 48, 3, seed=i)))
    return tmp_path


RUN = """
import sys, threading, time
from pathlib import Path
from espan import Upscaler, batch
folder = Path({folder!r})
upscaler = Upscaler("espan-x2", device="cpu")
jobs = batch.plan([folder / "in"], folder / "out", scale=2)
def work():
    for outcome in batch.run(jobs, [upscaler], 2):
        assert outcome.status == "done", outcome
"""


@pytest.mark.parametrize("daemon", [True, False])
def test_the_interpreter_ends_while_a_run_is_on(folder, daemon):
    code = (
        RUN.format(folder=str(folder))
        + f"""
threading.Thread(target=work, daemon={daemon}).start()
while not [*folder.glob("out/*.png")]:
    time.sleep(0.001)
"""
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    results = [*(folder / "out").glob("*.png")]
    # The interpreter waits for non-daemon threads.
    assert len(results) == 40 if not daemon else 0 < len(results) < 40
    assert all(Image.open(path).size == (96, 96) and Image.open(path).load() for path in results)
    assert [*(folder / "out").glob(".espan-*.part")] == []


def test_the_interpreter_ends_while_an_image_is_computed():
    code = """
import threading, time, numpy, espan
upscaler = espan.Upscaler("espan-x2", device="cpu", tile=32)
started = threading.Event()
image = numpy.zeros((600, 600, 3), numpy.uint8)
work = lambda: upscaler(image, progress=lambda *_: started.set())
threading.Thread(target=work, daemon=True).start()
started.wait()
"""
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("made", ["before", "in the child"])
def test_processes(tmp_path, method, made):
    code = f"""
import multiprocessing, sys
import numpy as np
import espan

def upscale(queue, upscaler):
    upscaler = upscaler or espan.Upscaler("espan-x2", device="cpu", dtype="fp32")
    queue.put(upscaler(np.full((20, 20, 3), 99, np.uint8)).tobytes())

if __name__ == "__main__":
    upscaler = espan.Upscaler("espan-x2", device="cpu", dtype="fp32")
    expected = upscaler(np.full((20, 20, 3), 99, np.uint8)).tobytes()
    context = multiprocessing.get_context({method!r})
    queue = context.Queue()
    held = upscaler if {made!r} == "before" else None
    children = [context.Process(target=upscale, args=(queue, held)) for _ in range(2)]
    [child.start() for child in children]
    assert [queue.get(timeout=300) for _ in children] == [expected] * 2
    [child.join() for child in children]
    assert [child.exitcode for child in children] == [0, 0]
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(sys.path)},  # because the script is elsewhere
    )
    assert (done.returncode, done.stderr) == (0, "")
