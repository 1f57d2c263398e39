"""Videos of any length take little memory and leave no threads behind."""

import time

import pytest

import espan
from tests.support.makers import nearest_net, python

av = pytest.importorskip("av", reason="PyAV is not installed")

from espan.system.ahead import ahead  # noqa: E402
from tests.support import clips  # noqa: E402

NET = nearest_net()
FINE = {"model": NET, "dtype": "fp32", "crf": 1}


def test_closing_the_iterator_stops_its_threads(tmp_path):
    import threading

    clip = clips.make(tmp_path / "in.mp4", 40)
    before = threading.active_count()
    images = espan.video_frames(clip, device="cpu", model=NET)
    next(images)
    images.close()
    assert threading.active_count() <= before


def test_ahead_computes_few_items_in_advance():
    made = []
    items = ahead((made.append(i) or i for i in range(100)), depth=2)
    assert next(items) == 0
    while len(made) < 4:
        time.sleep(0.01)
    time.sleep(0.2)  # a fifth would be made now
    assert len(made) == 4  # one in use, two in the queue, one waiting for a free place
    items.close()


def test_memory_stays_flat(tmp_path):
    """500 frames need no more memory than 100."""
    short = clips.make(tmp_path / "short.mp4", 100, (64, 48))
    long = clips.make(tmp_path / "long.mp4", 500, (64, 48))
    code = f"""
import espan
from pathlib import Path
from tests.support.makers import nearest_net

net, most = nearest_net(), []
for clip in ({str(short)!r}, {str(long)!r}):
    out = {str(tmp_path / "out.mp4")!r}
    espan.upscale_video(clip, out, 4, device="cpu", model=net, dtype="fp32")
    status = Path("/proc/self/status").read_text()
    most.append(int(status.split("VmHWM:")[1].split()[0]))
print(most[1] - most[0])
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 15_000  # 400 more images are 59,000 kB
