"""How much longer a video takes than its frames: `python bench/video.py [CLIP]`.

Both times in seconds, best of three in turn, and their quotient. Without CLIP one is made of a
picture that lies in this repository.
"""

import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image

import espan
from espan.video import convert, frames, source
from espan.video.options import Options

PICTURE = Path(__file__).parents[1] / "docs/images/before_after.png"
SIZE, FRAMES, ROUNDS = (160, 96), 60, 3


def make(path: Path) -> Path:
    """A clip whose window wanders over a picture."""
    width, height = SIZE
    picture = np.asarray(Image.open(PICTURE).convert("RGB"))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height = SIZE
        for i in range(FRAMES):
            part = picture[i : i + height, 2 * i : 2 * i + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(part), "rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def measure(clip: Path, folder: Path) -> tuple[float, float]:
    """(seconds for the network alone, seconds from file to file)."""
    upscaler = espan.Upscaler()
    pictures = [frame.picture for frame in frames.read(source.look(clip))]
    upscaler(pictures[0])
    alone, whole = [], []
    for number in range(ROUNDS):
        began = time.perf_counter()
        for picture in pictures:
            upscaler(picture)
        alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        convert.convert(clip, folder / f"{number}.mp4", upscaler, 4, [], Options())
        whole.append(time.perf_counter() - began)
    return min(alone), min(whole)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(sys.argv[1]) if len(sys.argv) > 1 else make(Path(folder) / "clip.mp4")
        alone, whole = measure(clip, Path(folder))
    print(f"network {alone:.3f} s, video {whole:.3f} s, {whole / alone:.2f} times")
