"""Invalid arguments of `Upscaler`, `espan.upscale` and their options give one-line errors."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

import espan
from espan import DeviceError, EspanError, InputError, Limits, Upscaler, UpscalerOptions
from tests.support.makers import random_net

NET = random_net(scale=2)
HOW = {"device": "cpu", "dtype": "fp32", "backend": "eager"}
UP = Upscaler(NET, **HOW)
IMAGE = Image.new("RGB", (6, 5))
ARRAY = np.zeros((2, 2))


def refused(kind: type[EspanError], match: str, call, *arguments, **more) -> None:
    with pytest.raises(kind, match=match) as caught:
        call(*arguments, **more)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("limits", None, InputError),
        ("limits", (1, 2, False), InputError),
        ("tile", ARRAY, InputError),
        ("tile", True, InputError),
        ("nonfinite", ARRAY, InputError),
        ("nonfinite", None, InputError),
        ("device", None, DeviceError),
        ("device", 3, DeviceError),
        ("device", [], DeviceError),
        ("device", "cuda:-1", DeviceError),
        ("device", "privateuseone", DeviceError),
        ("device", "fpga", DeviceError),
        ("dtype", None, DeviceError),
        ("dtype", ARRAY, DeviceError),
        ("dtype", np.float32, DeviceError),
        ("backend", None, DeviceError),
        ("backend", [], DeviceError),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_options(name, value, kind):
    more = HOW | {name: value}
    refused(kind, name, Upscaler, NET, **more)
    refused(kind, name, espan.upscale, IMAGE, 2, model=NET, **more)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="has one")
def test_a_device_that_is_not_there():
    refused(DeviceError, "device 'mps' is not available", Upscaler, NET, device="mps")
    refused(DeviceError, "'mps' is not", Upscaler, NET, device=torch.device("mps"))


@pytest.mark.parametrize("model", [3, 0, True, b"a", [], ARRAY, espan.ESPAN], ids=repr)
def test_models_of_no_kind(model):
    for call, more in ((Upscaler, ()), (espan.load, ()), (espan.upscale, (2,))):
        arguments = (IMAGE, *more) if call is espan.upscale else (model,)
        named = {"model": model} if call is espan.upscale else {}
        refused(InputError, "model: expected ", call, *arguments, **named)


@pytest.mark.parametrize("model", ["", "w" * 300, "a\0b", "\ud800"], ids=ascii)
def test_models_of_no_name(model):
    for call in (Upscaler, espan.load, lambda name: espan.upscale(IMAGE, 2, model=name)):
        with pytest.raises(espan.WeightsError):
            call(model)


@pytest.mark.parametrize(
    "scale",
    [
        10**400,
        -(10**400),
        10**5000,
        Fraction(10**400),
        float("nan"),
        float("inf"),
        True,
        "2",
        [],
        2j,
    ],
    ids=lambda scale: type(scale).__name__,
)
def test_scales(scale):
    refused(InputError, "scale: expected ", UP, IMAGE, scale)
    refused(InputError, "scale: expected ", espan.upscale, IMAGE, scale, **HOW)


def test_a_list_that_contains_itself():
    calls = []
    endless: list = [IMAGE]
    endless.append(endless)
    refused(InputError, "contains itself", UP, endless, progress=lambda *_: calls.append(1))
    assert not calls
    deep = IMAGE
    for _ in range(5000):
        deep = [deep]
    refused(InputError, "at most 8 deep", UP, deep)
    assert UP([[IMAGE], (IMAGE,)])[0][0].size == (12, 10)


def test_masks_are_not_dropped():
    masked = np.ma.masked_array(np.zeros((4, 4, 3), np.uint8), mask=np.ones((4, 4, 3)))
    refused(InputError, "masked array.*fill it", UP, masked)
    assert UP(masked.filled(0)).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (torch.zeros(0, 5, 4, 4), "1 to 4 channels, got 5"),
        (torch.zeros(0, 3, 0, 4), "at least 1 x 1"),
        (torch.zeros(0, 3, 4, 4, dtype=torch.int64), "expected uint8"),
        (torch.zeros(0, 3, 4, 4, device="meta"), "dense tensor with data"),
    ],
    ids=["channels", "size", "dtype", "meta"],
)
def test_batches_without_images(batch, reason):
    refused(InputError, reason, UP, batch)
    assert UP(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("output", ["", 3, b"a.png"], ids=repr)
def test_outputs(tmp_path, output):
    IMAGE.save(tmp_path / "a.png")
    refused(InputError, "output: ", UP, tmp_path / "a.png", output=output)


def test_other_arguments():
    refused(InputError, "progress: expected a function", UP, IMAGE, progress=3)
    refused(InputError, "options: expected", Upscaler.from_options, NET, None)
    refused(InputError, "image: the name is empty", UP, "")
    refused(InputError, "no file can have this name", UP, "a\0.png")


@pytest.mark.parametrize(
    "limits", [{"max_input": -1}, {"max_output": "9"}, {"max_input": True}, {"allow_truncated": 1}]
)
def test_limits(limits):
    refused(InputError, next(iter(limits)), Limits, **limits)


def test_options_compare_and_are_found_again():
    assert hash(UpscalerOptions(tile=[3, 4])) == hash(UpscalerOptions(tile=(3, 4)))
