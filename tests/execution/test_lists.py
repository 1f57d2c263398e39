"""Lists of images: a pipeline on a device, in sequence on a CPU."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from espan import InputError, Size, Upscaler
from espan.execution.calls import Call
from espan.images import files
from tests.execution.test_host_path import EAGER, KINDS, NET, H, W, alone, same
from tests.support.makers import noise
from tests.support.transfers import on_device


def test_a_list_is_one_pipeline():
    images = [noise(H, W, 3, seed=n) for n in range(6)]
    want = [alone(image) for image in images]
    with on_device(NET, **EAGER) as (up, (one, two), _):
        one.log = two.log = events = []
        got = up(images)
    assert all(map(same, got, want))
    order = [event for event in events if event in ("mark", "wait")]
    # At each wait two images are in progress, and each image is waited for once.
    assert order == ["mark", *["mark", "wait"] * 5, "wait"]
    assert events.count("capture") == 2  # images of one size share a program per slot


def test_lists_in_lists_and_files_among_them(tmp_path):
    path = files.write(tmp_path / "a.png", KINDS["PIL"])
    images = [KINDS["RGB"], (KINDS["grey"], [path, KINDS["batch"]]), [], KINDS["CHW"]]
    want = [alone(KINDS["RGB"]), (alone(KINDS["grey"]), [alone(path), alone(KINDS["batch"])])]
    with on_device(NET, **EAGER) as (up, _, _):
        got = up(images)
    assert same(got[0], want[0]) and type(got[1]) is tuple and same(got[1][0], want[1][0])
    assert same(got[1][1][0], want[1][1][0])
    assert np.abs(got[1][1][1].int() - want[1][1][1].int()).max() <= 1
    assert got[2] == [] and same(got[3], alone(KINDS["CHW"]))


@pytest.mark.parametrize("device", ["cpu", "make-believe"])
def test_an_error_in_a_list_is_raised_after_the_images_before_it(device):
    reported = []

    def progress(done: int, total: int) -> None:
        reported.append((done, total))

    images = [KINDS["RGB"], KINDS["RGB"], np.zeros((3, 3, 9), np.uint8), KINDS["RGB"]]
    with on_device(NET, **EAGER) as (up, _, _):
        up = up if device == "make-believe" else Upscaler(NET, device="cpu", **EAGER)
        for _ in range(3):
            with pytest.raises(InputError, match="1 to 4 channels"):
                up(images, progress=progress)
            assert reported == [(H * W, H * W)] * 2
            reported.clear()
        assert same(up(KINDS["RGB"]), alone(KINDS["RGB"]))


def test_slots_are_freed_when_a_list_is_abandoned():
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with on_device(NET, **EAGER) as (up, _, _):
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                up([KINDS["RGB"]] * 4, progress=stop)
        assert same(up(KINDS["RGB"]), alone(KINDS["RGB"]))


def test_a_call_within_the_progress_of_another_finds_a_free_slot():
    small, inner = KINDS["grey"], []
    with on_device(NET, **EAGER) as (up, _, _):
        up([KINDS["RGB"]] * 3, progress=lambda done, total: inner.append(up(small)))
    assert len(inner) == 3 and all(same(each, alone(small)) for each in inner)


def test_a_cpu_starts_an_image_after_the_previous_one_is_done(monkeypatch):
    events = []
    up = Upscaler(NET, device="cpu", **EAGER)
    prepared = Call._prepared
    monkeypatch.setattr(Call, "_prepared", lambda *args: events.append("next") or prepared(*args))
    up([KINDS["RGB"]] * 3, progress=lambda done, total: events.append("done"))
    assert events == ["next", "done"] * 3


def test_one_pass_several_and_none_in_one_list():
    sides = [(H, W), (H, W), (3, 3), (H, W), (2 * H, 8 * W), (3, 4)]
    images = [Image.fromarray(noise(*side, 3, seed=n)) for n, side in enumerate(sides)]
    size, reported = Size(width=4 * W - 2), []
    cpu = Upscaler(NET, device="cpu", **EAGER)
    with on_device(NET, **EAGER) as (up, _, _):
        got = up(images, size, progress=lambda *each: reported.append(each))
    for image, one in zip(images, got, strict=True):
        want = np.asarray(cpu(image, size)).astype(int)
        assert one.size[0] == 4 * W - 2 and one.mode == "RGB"
        assert np.abs(np.asarray(one) - want).max() <= 1
    assert sum(done == total for done, total in reported) == len(images)


def test_bytes_in_a_list_become_bytes(tmp_path):
    path = files.write(tmp_path / "a.png", KINDS["PIL"])
    with on_device(NET, **EAGER) as (up, _, _):
        data, image = up([path.read_bytes(), path])
    assert type(data) is bytes
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(data))), np.asarray(image))


@pytest.mark.parametrize("channels", [3, 4])
def test_a_batch_without_images(channels):
    up = Upscaler(NET, device="cpu", **EAGER)
    none = torch.zeros(0, channels, 5, 6, dtype=torch.uint8)
    for scale in (1.5, 4, 9):
        assert up(none, scale).shape == (0, channels, round(5 * scale), round(6 * scale))
