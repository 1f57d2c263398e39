"""How much longer a video takes than its frames: `python bench/video.py [CLIP]`.

Seconds of the network alone, frame after frame as a loop over `Upscaler` would have it; alone, with
frames sharing the cores as a video's do; and of the video from file to file. Best of three, in
turn, as seconds of a clock and of processors. Without CLIP one is made of a picture that lies in
this repository.
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


def timed(work) -> tuple[float, float]:
    wall, processors = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processors


def measure(clip: Path, folder: Path) -> dict[str, tuple[float, float]]:
    """(seconds, processor seconds) by what was done."""
    upscaler = espan.Upscaler()
    facts = source.look(clip)
    decoded = list(frames.read(facts))
    upscaler(decoded[0].picture)

    def sharing() -> None:
        for _ in convert._enlarged(facts, (each for each in decoded), upscaler, 4):
            pass

    works = {
        "network alone": lambda: [upscaler(each.picture) for each in decoded],
        "network alone, frames sharing the cores": sharing,
        "video": lambda: convert.convert(clip, folder / "out.mp4", upscaler, 4, Options()),
    }
    rounds = [{name: timed(work) for name, work in works.items()} for _ in range(ROUNDS)]
    return {name: min(each[name] for each in rounds) for name in works}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(sys.argv[1]) if len(sys.argv) > 1 else make(Path(folder) / "clip.mp4")
        results = measure(clip, Path(folder))
    for name, (wall, processors) in results.items():
        times = results["video"][0] / wall
        print(f"{name}: {wall:.3f} s, {processors:.3f} s of processors; video {times:.2f} times")
