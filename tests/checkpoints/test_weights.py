"""Loading of published files (with their published PSNR), training checkpoints, our format."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import espan
from espan import ESPAN, SPAN, SPANF, Upscaler, WeightsError, fold, load, psnr
from espan.checkpoints.weights import BUILTIN, SHA256, model_for, save
from espan.images.resize import modcrop
from tests.support.makers import noise, random_net
from tests.support.original_span import OriginalSPAN

OFFICIAL = {
    "espan": ("espan_x4_ntire2025.pth", ESPAN, {"channels": 32, "blocks": 5, "last_convs": 2}),
    "span28": ("span28_x4_ntire2024.pth", SPAN, {"channels": 28, "blocks": 6}),
    "spanf": ("spanf32_x4_ntire2025.pth", SPANF, {"channels": 32, "blocks": 5}),
}


def decibels(upscaler, folder) -> tuple[float, float]:
    """Mean PSNR of Y and RGB on the published LR files, `scale` pixels shaved."""
    values, scale = [], upscaler.scale
    for path in sorted((folder / "HR").iterdir()):
        hr = modcrop(np.asarray(Image.open(path).convert("RGB")), scale)
        sr = upscaler(np.asarray(Image.open(folder / f"LRx{scale}" / path.name).convert("RGB")))
        values.append([psnr(sr, hr, space=s, border=scale, range=255) for s in ("y", "rgb")])
    return tuple(np.mean(values, axis=0))


@pytest.mark.shared
@pytest.mark.parametrize("kind", OFFICIAL)
def test_official_files_are_recognised(shared, kind):
    name, arch, config = OFFICIAL[kind]
    net = load(shared / "weights" / name)
    assert type(net) is arch and net.scale == 4 and net.folded and not net.training
    assert config.items() <= net.config.items()


# RGB and Y from docs/method.md: full images, float32.
@pytest.mark.shared
@pytest.mark.parametrize(
    ("kind", "dataset", "y", "rgb"),
    [
        ("espan", "Set5", 31.942, 30.043),
        ("espan", "Set14", 28.520, 26.702),
        ("span28", "Set5", 31.746, 29.855),
        ("span28", "Set14", 28.405, 26.596),
    ],
)
def test_published_decibels(shared, kind, dataset, y, rgb):
    upscaler = Upscaler(
        shared / "weights" / OFFICIAL[kind][0], device="cpu", dtype="fp32", tile=None
    )
    measured = decibels(upscaler, shared / "data/benchmark" / dataset)
    assert measured == pytest.approx((y, rgb), abs=0.01)


@pytest.mark.shared
def test_spanf_is_close_to_espan(shared):
    # No published PSNR is known; it must be a little below ESPAN's 31.94 dB.
    upscaler = Upscaler(shared / "weights" / OFFICIAL["spanf"][0], device="cpu", dtype="fp32")
    y, _ = decibels(upscaler, shared / "data/benchmark/Set5")
    assert 31.5 < y < 31.94


LEAST_Y_PSNR = {2: (37.45, 33.10), 3: (33.69, 29.83), 4: (31.80, 28.35)}


@pytest.mark.parametrize("dataset", ["Set5", "Set14"])
@pytest.mark.parametrize("scale", LEAST_Y_PSNR)
@pytest.mark.shared
def test_built_in_weights_reach_their_psnr(shared, dataset, scale):
    upscaler = Upscaler(f"espan-x{scale}", device="cpu", dtype="fp32")
    y, _ = decibels(upscaler, shared / "data/benchmark" / dataset)
    assert y >= dict(zip(("Set5", "Set14"), LEAST_Y_PSNR[scale], strict=True))[dataset]


@pytest.mark.parametrize("name", BUILTIN)
def test_built_in_networks(name):
    net = load(name)
    assert type(net) is ESPAN and net.scale == int(name[7]) and net.folded
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert BUILTIN[name] in SHA256


def test_built_in_files_are_small():
    folder = resources.files("espan") / "builtin"
    sizes = [len((folder / file).read_bytes()) for file in BUILTIN.values()]
    assert max(sizes) < 400_000 and sum(sizes) < 2_500_000


@pytest.mark.parametrize(
    ("scale", "name"), [(1, "x2"), (2, "x2"), (2.5, "x3"), (3, "x3"), (4, "x4")]
)
def test_each_scale_selects_the_next_larger_built_in_network(scale, name):
    assert model_for(scale) == f"espan-{name}"


def original(channels: int, scale: int, seed: int = 0) -> OriginalSPAN:
    """With weights that keep signals in range after (x - mean) * 255."""
    torch.manual_seed(seed)
    net = OriginalSPAN(channels, scale)
    with torch.no_grad():
        for part in net.conv_1.parameters():
            part /= 4
        for part in net.upsampler.parameters():
            part /= 8
    return net


@pytest.mark.parametrize("wrapper", ["params", "params_ema", "both", None], ids=str)
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("channels", [48, 52])
def test_original_training_checkpoint(tmp_path, channels, scale, wrapper):
    net = original(channels, scale)
    state = {
        "params": {"params": net.state_dict()},
        "params_ema": {"params_ema": net.state_dict()},
        # The averaged weights are better than the raw ones.
        "both": {
            "params": original(channels, scale, seed=1).state_dict(),
            "params_ema": net.state_dict(),
        },
        None: net.state_dict(),
    }[wrapper]
    torch.save(state, tmp_path / "net.pth")
    loaded = load(tmp_path / "net.pth")
    x = torch.from_numpy(noise(1, 3, 9, 7, dtype=np.float32))
    expected = net(x)
    assert expected.std() > 0.05
    torch.testing.assert_close(loaded(x), expected, rtol=1e-4, atol=1e-4)


def test_branches_are_kept_on_request(tmp_path):
    torch.save({"params": original(48, 4).state_dict()}, tmp_path / "net.pth")
    net = load(tmp_path / "net.pth", folded=False)
    assert not net.folded
    x = torch.from_numpy(noise(1, 3, 6, 6, dtype=np.float32))
    torch.testing.assert_close(net(x), fold(net)(x), rtol=1e-4, atol=1e-4)


def test_no_norm_switches_normalisation_off(tmp_path):
    state = original(48, 2).state_dict() | {"no_norm": torch.zeros(1)}
    torch.save(state, tmp_path / "net.pth")
    config = load(tmp_path / "net.pth").config
    assert config["img_range"] == 1 and tuple(config["mean"]) == (0, 0, 0)


def test_keys_of_data_parallel_training(tmp_path):
    state = {f"module.{key}": value for key, value in original(48, 2).state_dict().items()}
    torch.save(state, tmp_path / "net.pth")
    assert load(tmp_path / "net.pth").scale == 2


@pytest.mark.parametrize("rep", [None, "espan", "span", "plain"], ids=str)
@pytest.mark.parametrize("arch", [ESPAN, SPAN, SPANF])
def test_round_trip_is_bit_exact(tmp_path, arch, rep):
    net = random_net(arch, rep=rep, **({} if arch is ESPAN else {"blocks": 2}))
    save(net, tmp_path / "net.safetensors")
    loaded = load(tmp_path / "net.safetensors", folded=False)
    assert type(loaded) is arch
    assert (loaded.scale, loaded.radius, loaded.folded) == (net.scale, net.radius, net.folded)
    for key, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_half_precision_file(tmp_path, net):
    save(net, tmp_path / "half.safetensors", dtype=torch.float16)
    save(net, tmp_path / "full.safetensors")
    assert {t.dtype for t in load_file(tmp_path / "half.safetensors").values()} == {torch.float16}
    loaded = load(tmp_path / "half.safetensors")
    for key, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor.half().float()), key


def test_metadata_says_what_the_file_is(tmp_path, net):
    save(net, tmp_path / "net.safetensors", licence="CC0", trained_on="nothing")
    with safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["licence"] == "CC0" and metadata["trained_on"] == "nothing"
    description = json.loads(metadata["espan"])
    assert description["arch"] == "ESPAN" and description["config"]["channels"] == 8
    assert description["scale"] == 4 and description["folded"] is True
    assert description["range"] == "0..1"


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch, net):
    path = tmp_path / "net.safetensors"
    save(net, path)
    before = path.read_bytes()

    def full(target, _content):
        with target.open("wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save(net, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_load_is_in_eval_mode_and_float32_on_the_cpu(tmp_path, net):
    save(net.train(), tmp_path / "net.safetensors", dtype=torch.bfloat16)
    loaded = load(str(tmp_path / "net.safetensors"))
    assert not loaded.training
    assert {(p.dtype, p.device.type) for p in loaded.parameters()} == {(torch.float32, "cpu")}


def test_load_errors_are_espan_errors():
    with pytest.raises(espan.EspanError):
        load("no-such-name")
    with pytest.raises(WeightsError, match=r"no-such-name: .*espan-x4"):
        load("no-such-name")
