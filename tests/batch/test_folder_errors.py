"""A folder on a device that overflows, and on a lost device."""

import pytest
from PIL import Image

from espan import DeviceLostError, Upscaler, batch
from espan.images import files
from tests.execution.test_tiling import NET, Failing, overflowing_net
from tests.support.makers import noise


def folder_of_two(tmp_path) -> list:
    for name in ("a.png", "b.png"):
        files.write(tmp_path / name, Image.fromarray(noise(20, 24, 3)))
    return batch.plan([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "big")


def test_overflowed_tiles_are_counted_for_each_file(tmp_path):
    up = Upscaler(overflowing_net(2.0**16), device="cpu", dtype="fp16", tile=16)
    outcomes = [*batch.run(folder_of_two(tmp_path), [up], 4)]
    assert [each.status for each in outcomes] == ["done", "done"]
    assert outcomes[0].redone == outcomes[1].redone == up.redone / 2 > 0


def test_a_lost_device_ends_a_folder(monkeypatch, tmp_path):
    Failing(monkeypatch, range(1, 99), RuntimeError("CUDA error: an illegal memory access"))
    with pytest.raises(DeviceLostError, match="only a new process"):
        [*batch.run(folder_of_two(tmp_path), [Upscaler(NET, device="cpu", dtype="fp32")], 4)]
