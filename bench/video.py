"""The overhead of a video over its frames: `python bench/video.py [CLIP]`.

Times the network alone in a loop over `Upscaler`, the network with frames sharing the cores as in a
video, and the video from file to file. Prints the best of three interleaved rounds in wall-clock
and CPU seconds. Without CLIP it makes one from an image in this repository.
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

IMAGE = Path(__file__).parents[1] / "docs/images/before_after.png"
SIZE, FRAMES, ROUNDS = (160, 96), 60, 3


def make(path: Path) -> Path:
    """Writes a clip that pans over an image."""
    width, height = SIZE
    image = np.asarray(Image.open(IMAGE).convert("RGB"))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height = SIZE
        for i in range(FRAMES):
            part = image[i : i + height, 2 * i : 2 * i + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(part), "rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def timed(work) -> tuple[float, float]:
    wall, processors = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processors


def measure(clip: Path, folder: Path, device: str = "auto") -> dict[str, tuple[float, float]]:
    """{name: (wall-clock seconds, CPU seconds)}."""
    upscaler = espan.Upscaler(device=device)
    facts = source.probe(clip)
    decoded = list(frames.read(facts))
    upscaler(decoded[0].image)

    def sharing() -> None:
        for _ in convert._upscaled(facts, (each for each in decoded), upscaler, 4):
            pass

    works = {
        "network alone": lambda: [upscaler(each.image) for each in decoded],
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
        print(f"{name}: {wall:.3f} s, {processors:.3f} CPU seconds; video takes {times:.2f} times")
