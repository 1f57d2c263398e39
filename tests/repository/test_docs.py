"""What the documents tell a user to type works: every shell command and the Python of the guides.

Commands in fences marked `sh` run, page by page, in a folder with pictures, a video and weights.
Trainings that take hours have at least their settings read.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from espan.images.resize import resize
from espan.training.config import read_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Whose Python is a program, and not a passage of one.
GUIDES = [ROOT / "README.md", *(ROOT / f"docs/{name}.md" for name in ("python", "video", "page"))]
# What the commands of a page need beyond the package itself.
NEEDS = {
    "video.md": ["av"],
    "picture.md": ["tifffile", "pillow_heif"],
    "folder.md": ["ray"],
    "deployment.md": ["onnx", "onnxscript", "onnxruntime", "openvino"],
    "training.md": ["yaml", "lightning"],
}


def fences(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands(page: Path) -> list[str]:
    """Of the fences to run, line by line, without their comments."""
    lines = "\n".join(fences(page, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


@pytest.fixture(scope="session")
def desk(tmp_path_factory) -> Path:
    """What the documents take to lie in the user's folder."""
    folder = tmp_path_factory.mktemp("desk")
    kitten = np.asarray(Image.open(ROOT / "docs/images/kitten.png").convert("RGB"))
    original = np.ascontiguousarray(kitten[40:104, 24:120])
    Image.fromarray(original).save(folder / "original.png")
    small = resize(original, (16, 24))
    Image.fromarray(small).save(folder / "small.png")
    Image.fromarray(original[:32, :48]).save(folder / "photo.jpg")
    for name in ("a.png", "b.jpg", "more/c.webp"):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(original[:24, :40]).save(path)
    pages = [Image.fromarray(original[:24, :40]), Image.fromarray(original[8:24, :24])]
    pages[0].save(folder / "scan.tif", save_all=True, append_images=pages[1:])
    (folder / "stickers").mkdir()
    first, *rest = (Image.fromarray(np.roll(original[:24, :40], i, 1)) for i in range(3))
    for name in ("cat.gif", "stickers/cat.webp"):
        first.save(folder / name, save_all=True, append_images=rest, duration=40)
    (folder / "benchmark/HR").mkdir(parents=True)
    shutil.copy(folder / "original.png", folder / "benchmark/HR")
    shutil.copy(ROOT / "espan/builtin/espan_x4.safetensors", folder / "weights.safetensors")
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


def _clip(path: Path, picture: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.height, video.width = picture.shape[:2]
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=48000, layout="mono")
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, i, 1))
            container.mux(video.encode(frame))
        wave = np.sin(np.arange(19200) * 0.05).astype(np.float32)[None]
        for i in range(0, 19200, 960):
            chunk = av.AudioFrame.from_ndarray(wave[:, i : i + 960], "fltp", "mono")
            chunk.sample_rate, chunk.pts = 48000, i
            container.mux(sound.encode(chunk))
        container.mux(video.encode())
        container.mux(sound.encode())


def run(command: list[str] | str, desk: Path) -> None:
    path = f"{desk / 'programs'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=desk,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def skip_without_extras(page: Path) -> None:
    for module in NEEDS.get(page.name, ()):
        pytest.importorskip(module, reason=f"{module} is not installed")


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.name)
def test_commands_work(page, desk):
    skip_without_extras(page)
    for command in commands(page):
        run(command, desk)


@pytest.mark.parametrize("page", [p for p in GUIDES if p.exists()], ids=lambda p: p.name)
def test_python_works(page, desk):
    skip_without_extras(page)
    before = "import torch, PIL.Image\nimg = PIL.Image.open('photo.jpg')\n"
    run([sys.executable, "-c", before + "\n".join(fences(page, "python"))], desk)


def trainings() -> list[str]:
    """Every `espan train` in a fence of any kind."""
    found = []
    for page in PAGES:
        for fence in re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.M | re.S):
            lines = fence.replace("\\\n", " ").splitlines()
            found += [re.sub(r".*espan\.cli", "espan", x) for x in lines if " train " in x]
    return sorted({line for line in found if line.startswith("espan train")})


@pytest.mark.parametrize("command", trainings())
def test_trainings_have_settings_that_are_known(command, monkeypatch):
    pytest.importorskip("yaml")
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)[2:]
    read_config(words[0], words[1:])


def test_every_task_has_a_page():
    pages = {page.name for page in PAGES}
    tasks = {
        "picture",
        "folder",
        "video",
        "page",
        "python",
        "training",
        "ops",
        "cuda",
        "deployment",
    }
    assert {f"{task}.md" for task in tasks} <= pages


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_tests_that_are_named_exist():
    for page in PAGES:
        for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
            assert (ROOT / file).is_file(), f"{page.name} names {file}"
            assert not name or f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
