"""The documents: their pages, the commands in them, and a folder to run these in."""

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from espan.cli import _parser
from espan.images.files import write
from espan.images.image16 import Image16
from espan.images.resize import resize

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
PROGRAMS = ("espan", "python", "pip", "pytest", "torchrun", "ray", "eval", "cat")


def fences(page: Path, kind: str) -> list[str]:
    """The fenced blocks of a page that are marked as `kind`."""
    return [text for name, text in FENCE.findall(page.read_text()) if name == kind]


def commands(page: Path) -> list[str]:
    """What a page tells its reader to type: lines of `sh` fences, and code within sentences."""
    lines = "\n".join(fences(page, "sh")).replace("\\\n", " ").splitlines()
    spans = re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text()))
    lines += [" ".join(span.split()) for span in spans if span.split()[0] in PROGRAMS]
    whole = [re.sub(r"(^| )#.*", "", line) for line in lines]
    parts = [part.strip() for line in whole for part in line.split(" && ")]
    return [part for part in dict.fromkeys(parts) if len(words(part)) > 1 and not is_mention(part)]


def words(command: str) -> list[str]:
    """A command's words, without the variables that are set before it."""
    found = shlex.split(command)
    while found and re.match(r"[A-Z_]+=", found[0]):
        found.pop(0)
    return found


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands of `espan`, by name."""
    (found,) = (action for action in _parser()._actions if action.choices)
    return {**found.choices}


def is_mention(command: str) -> bool:
    """Whether a sentence only names a command, or an option of it, that is there and needs more."""
    program, *rest = words(command)
    if program != "espan" or rest == ["--help"]:
        return program == "espan"
    if rest[0] not in parsers() or len(rest) > 2:
        return False
    parser = parsers()[rest[0]]
    needs = any(action.required or action.nargs == "?" for action in parser._actions)
    return needs and all(option in parser._option_string_actions for option in rest[1:])


def make_desk(folder: Path) -> Path:
    """Puts into a folder what the documents take to lie in the user's."""
    kitten = np.asarray(Image.open(ROOT / "docs/images/kitten.png").convert("RGB"))
    original = np.ascontiguousarray(kitten[40:104, 24:120])
    Image.fromarray(original).save(folder / "original.png")
    small = resize(original, (16, 24))
    Image.fromarray(small).save(folder / "small.png")
    write(folder / "deep.png", Image16(small.astype(np.uint16) * 257))
    Image.fromarray(original[:32, :48]).save(folder / "photo.jpg")
    for name in ("a.png", "b.jpg", "more/c.webp"):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(original[:24, :40]).save(path)
    (folder / "DIV2K_and_LSDIR").symlink_to("photos")
    pages = [Image.fromarray(original[:24, :40]), Image.fromarray(original[8:24, :24])]
    pages[0].save(folder / "scan.tif", save_all=True, append_images=pages[1:])
    (folder / "stickers").mkdir()
    first, *rest = (Image.fromarray(np.roll(original[:24, :40], i, 1)) for i in range(3))
    for name in ("cat.gif", "stickers/cat.webp"):
        first.save(folder / name, save_all=True, append_images=rest, duration=40)
    (folder / "benchmark/HR").mkdir(parents=True)
    shutil.copy(folder / "original.png", folder / "benchmark/HR")
    weights = ROOT / "espan/builtin/espan_x4.safetensors"
    shutil.copy(weights, folder / "weights.safetensors")
    for run in ("a", "b", "espan_x2", "espan_x4_distill"):
        (folder / "runs" / run).mkdir(parents=True)
        shutil.copy(weights, folder / "runs" / run / "final.safetensors")
    for name in ("configs", "bench", "tests", "docs", "espan", "espan_kernels", "csrc"):
        (folder / name).symlink_to(ROOT / name)
    if importlib.util.find_spec("av"):
        _clip(folder / "clip.mp4", original[:32, :48])
    programs = folder / "programs"
    programs.mkdir()
    for name, run in (("espan", "-m espan.cli"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {run} "$@"\n')
        program.chmod(0o755)
    return folder


def _clip(path: Path, image: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.height, video.width = image.shape[:2]
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=48000, layout="mono")
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(np.roll(image, i, 1))
            container.mux(video.encode(frame))
        wave = np.sin(np.arange(19200) * 0.05).astype(np.float32)[None]
        for i in range(0, 19200, 960):
            chunk = av.AudioFrame.from_ndarray(wave[:, i : i + 960], "fltp", "mono")
            chunk.sample_rate, chunk.pts = 48000, i
            container.mux(sound.encode(chunk))
        container.mux(video.encode())
        container.mux(sound.encode())


def run(command: list[str] | str, desk: Path) -> str:
    """Runs a command in the folder, without a GPU, and returns what it printed; it must succeed."""
    path = f"{desk / 'programs'}{os.pathsep}{os.environ['PATH']}"
    line = ["bash", "-c", command] if isinstance(command, str) else command
    done = subprocess.run(
        line,
        cwd=desk,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout
