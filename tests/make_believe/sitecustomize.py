"""A make-believe GPU: with this folder on PYTHONPATH, every Python finds one that does not exist.

`torch.cuda` says that a device is there, which is what "auto" asks; whatever is then made on it
fails. PyTorch and Triton themselves are told the truth: their compilers ask for more. A test that passes under it does not depend on what the machine has.
CUDA_VISIBLE_DEVICES="" hides it, as it hides a real one.
"""

import importlib.util
import os
import sys
from types import SimpleNamespace

TOLD_THE_TRUTH = ("torch", "triton")


def is_available() -> bool:
    asks = sys._getframe(1).f_globals.get("__name__", "")
    return asks.split(".")[0] not in TOLD_THE_TRUTH


ANSWERS = {
    "is_available": is_available,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_name": lambda device=None: "a make-believe GPU",
    "get_device_capability": lambda device=None: (9, 0),
    "get_device_properties": lambda device=None: SimpleNamespace(
        name="a make-believe GPU", major=9, minor=0, total_memory=80 << 30
    ),
}


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
            vars(module).update(ANSWERS)

        spec.loader.exec_module = believe
        return spec


if os.environ.get("CUDA_VISIBLE_DEVICES") != "":
    sys.meta_path.insert(0, Finder())
