"""`python -m tests.verification.names`: impossible file names, FIFOs, devices and broken links.

Passes each of them to every command wherever it takes a name. Expects no tracebacks, no hangs
(opening a FIFO blocks) and no control characters in the output.
"""

import contextlib
import io
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from espan import load, save, upscale
from espan.cli import main
from espan.networks.espan import ESPAN

EVIL = "a\x1b[31m\nb\udcff"
# {} is replaced by the name; `net` and `in` are a valid network and a valid folder.
COMMANDS = (
    "upscale {} -n net.safetensors --device cpu",
    "upscale in -o {} -n net.safetensors --device cpu -q",
    "upscale in/a.png -o {}.png -n net.safetensors --device cpu",
    "upscale in/a.png -n {} --device cpu",
    "upscale in -o out -n net.safetensors --device cpu --resume -q",
    "eval --data {} --bicubic",
    "eval --data in -n {}",
    "prepare {} -o prepared",
    "prepare in -o {}",
    "export {} -o a.safetensors",
    "export net.safetensors -o {}.safetensors",
    "compare {} -o a.html -n net.safetensors --device cpu",
    "compare in/a.png -o {}.html -n net.safetensors --device cpu",
    "train {}",
)
# Characters that a terminal would interpret.
OBEYED = re.compile("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
PATIENCE = 30


def names() -> list[str]:
    """Names of special files made in the current folder, and impossible names."""
    os.mkfifo("fifo.png")
    os.mkfifo("fifo")
    Path("dangling.png").symlink_to("nowhere")
    Path("loop.png").symlink_to("loop.png")
    Path("device.png").symlink_to("/dev/zero")
    Path(f"{EVIL}.png").write_bytes(b"no image")
    Path("odd").mkdir()
    for name in ("fifo.png", "dangling.png", "loop.png", f"{EVIL}.png"):
        (Path("odd") / name).symlink_to(Path.cwd() / name)
    made = ["fifo.png", "fifo", "dangling.png", "loop.png", "device.png", f"{EVIL}.png", "odd"]
    return [*made, "", "w" * 300, "w" * 5000, "a\0b", "\ud800", "in/a.png/b", EVIL]


def attempts() -> Iterator[str]:
    """The outcome of each attempt: "" or the kind of finding."""
    for name in names():
        for command in COMMANDS:
            arguments = [each.replace("{}", name) for each in command.split(" ")]
            yield _attempt(lambda arguments=arguments: main(arguments))
        for call in (load, lambda name: upscale(name, 2, device="cpu")):
            yield _attempt(lambda call=call, name=name: _api(call, name))


def _api(call, name: str) -> None:
    from espan import EspanError

    with contextlib.suppress(EspanError):
        call(name)


def _attempt(work) -> str:
    out, error = io.StringIO(), io.StringIO()
    signal.alarm(PATIENCE)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            work()
    except TimeoutError:
        return "hangs"
    except SystemExit:
        pass
    except Exception as unexpected:
        return f"tracebacks: {type(unexpected).__name__}"
    finally:
        signal.alarm(0)
    return "obeyed" if OBEYED.search(error.getvalue() + out.getvalue()) else ""


def count() -> dict:
    def waited(*_) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, waited)
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("in").mkdir()
        Image.new("RGB", (48, 48)).save("in/a.png")
        save(ESPAN(channels=4, blocks=1, last_convs=0, scale=2), "net.safetensors")
        findings = [*attempts()]
        os.chdir(here)
    kinds = ("tracebacks", "hangs", "obeyed")
    counts = {kind: sum(each.startswith(kind) for each in findings) for kind in kinds}
    return {"names_tried": len(findings), **counts}


if __name__ == "__main__":
    if "--help" in sys.argv:
        print("usage: python -m tests.verification.names", file=sys.stderr)
        sys.exit()
    found = count()
    print(json.dumps(found))
    sys.exit(any(number for kind, number in found.items() if kind != "names_tried"))
