"""A make-believe GPU: with this folder on PYTHONPATH, every Python finds one that does not exist.

`torch.cuda` says that a device is there, which is what "auto" asks; whatever is then made on it
fails. A test that passes under it does not depend on what the machine has. PyTorch and Triton
themselves hear the truth, as their compilers ask for more. CUDA_VISIBLE_DEVICES="" hides this
device as it hides a real one.

With NOTE_WHO_ASKS=FILE everyone hears the truth, and each question adds a line to FILE: the test
that runs, also where a process that it started asks, or the file that asks while it is imported.
The make-believe GPU can change no other test.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

HEAR_THE_TRUTH = ("torch", "triton")
NAME = "a make-believe GPU"
PROPERTIES = SimpleNamespace(name=NAME, major=9, minor=0, total_memory=80 << 30)
NOTES = os.environ.get("NOTE_WHO_ASKS")
ANSWERS = {
    "is_available": True,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": NAME,
    "get_device_capability": (9, 0),
    "get_device_properties": PROPERTIES,
}


def told(answer, truth):
    """The function `truth`, which gives `answer` to all but a few, or notes that they ask."""

    def ask(*args, **kwargs):
        asks = sys._getframe(1).f_globals.get("__name__", "")
        if asks.split(".")[0] in HEAR_THE_TRUTH:
            return truth(*args, **kwargs)
        if NOTES is None:
            return answer
        # Without a test a file is being imported, often by a test's skipif.
        test = os.environ.get("PYTEST_CURRENT_TEST", f"{asks.replace('.', '/')}.py")
        with Path(NOTES).open("a") as notes:
            notes.write(f"{test}: {asks}\n")
        return truth(*args, **kwargs)

    return ask


class Finder:
    """Lets `torch.cuda` be imported, and then answers in its place."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch.cuda":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def believe(module) -> None:
            execute(module)
            for question, answer in ANSWERS.items():
                setattr(module, question, told(answer, getattr(module, question)))

        spec.loader.exec_module = believe
        return spec


if os.environ.get("CUDA_VISIBLE_DEVICES") != "":
    sys.meta_path.insert(0, Finder())
