"""Our networks in spandrel, with the real package if it is installed."""

import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch

import espan
from espan import ESPAN, SPAN, SPANF, InputError
from espan.networks.span import DIV2K_MEAN
from tests.support.makers import random_net


def _no_torchvision() -> dict[str, ModuleType]:
    """Stubs for spandrel's imports from torchvision, for networks not used here."""
    functional = ModuleType("torchvision.transforms.functional")
    functional.InterpolationMode = type("InterpolationMode", (), {"NEAREST": 0, "BILINEAR": 1})
    functional.rotate = functional.normalize = None
    transforms, torchvision = ModuleType("torchvision.transforms"), ModuleType("torchvision")
    transforms.functional, torchvision.transforms = functional, transforms
    return {each.__name__: each for each in (torchvision, transforms, functional)}


@pytest.fixture(scope="module")
def spandrel():
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("torchvision") is None:
            for name, module in _no_torchvision().items():
                patch.setitem(sys.modules, name, module)
        library = pytest.importorskip("spandrel")
    espan.register_spandrel()
    return library


def image() -> torch.Tensor:
    return torch.rand(1, 3, 19, 7, generator=torch.Generator().manual_seed(1))


CONFIGS = [
    (ESPAN, {"channels": 12, "blocks": 2, "last_convs": 0, "scale": 2}),
    (ESPAN, {"channels": 8, "blocks": 1, "last_convs": 1, "scale": 4}),
    (ESPAN, {"channels": 8, "blocks": 2, "last_convs": 2, "scale": 3}),
    (ESPAN, {"channels": 8, "blocks": 1, "last_convs": 3, "scale": 2}),
    (SPAN, {"channels": 8, "blocks": 3, "scale": 2}),
    (SPANF, {"channels": 8, "blocks": 1, "scale": 4}),
    (SPANF, {"channels": 8, "blocks": 3, "scale": 2}),
]


@pytest.mark.parametrize(("make", "config"), CONFIGS, ids=str)
def test_files_of_ours_load(make, config, tmp_path, spandrel):
    net, path = random_net(make, **config), tmp_path / "net.safetensors"
    espan.save(net, path)
    loaded = spandrel.ModelLoader().load_from_file(path)
    assert isinstance(loaded, spandrel.ImageModelDescriptor)
    assert loaded.architecture.id == f"espan.{make.__name__}"
    assert loaded.architecture.name == make.__name__
    assert (loaded.scale, loaded.purpose) == (net.scale, "SR")
    assert (loaded.input_channels, loaded.output_channels) == (3, 3)
    assert loaded.size_requirements.check(1, 1), "any size"
    assert loaded.tags == [f"{config['channels']}nf"]
    with torch.no_grad():
        assert torch.equal(loaded(image()), net(image()).clamp(0, 1))


def test_half_precision_is_on_offer(tmp_path, spandrel):
    path = espan.export("espan-x4", tmp_path / "net.safetensors", fp16=True).path
    loaded = spandrel.ModelLoader().load_from_file(path)
    assert loaded.supports_half and loaded.supports_bfloat16
    with torch.no_grad():
        full, half = loaded(image()), loaded.half()(image().half())
    torch.testing.assert_close(half.float(), full, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("mean", "img_range"),
    [
        (DIV2K_MEAN, 255.0),
        (DIV2K_MEAN, 1.0),
        ((0.0, 0.0, 0.0), 1.0),
    ],
    ids=str,
)
def test_an_exported_span_loads_without_us(mean, img_range, tmp_path, spandrel):
    """By spandrel's own SPAN, with any pixel range."""
    net = random_net(SPAN, blocks=6, mean=mean, img_range=img_range, scale=2)
    path = espan.export(net, tmp_path / "net.safetensors").path
    loaded = spandrel.ModelLoader().load_from_file(path)
    assert (loaded.architecture.id, loaded.scale) == ("SPAN", 2)
    with torch.no_grad():
        loaded_image = loaded.eval()(image())
        torch.testing.assert_close(loaded_image, net(image()).clamp(0, 1), atol=1e-5, rtol=0)


def test_registering_again_changes_nothing(spandrel):
    count = len(spandrel.MAIN_REGISTRY)
    assert {f"espan.{each.__name__}" for each in (ESPAN, SPAN, SPANF)} <= {
        each.architecture.id for each in spandrel.MAIN_REGISTRY
    }
    espan.register_spandrel()
    assert len(spandrel.MAIN_REGISTRY) == count


def test_files_of_others_and_of_training_are_not_taken_for_ours(tmp_path, spandrel):
    path = tmp_path / "net.safetensors"
    espan.save(random_net(rep="espan"), path)
    with pytest.raises(spandrel.UnsupportedModelError):
        spandrel.ModelLoader().load_from_file(path)
    ours = [each for each in spandrel.MAIN_REGISTRY if each.architecture.id.startswith("espan.")]
    assert len(ours) == 3
    assert not any(each.detect({"conv_1.sk.weight": torch.zeros(1)}) for each in ours)


@pytest.mark.parametrize(
    ("config", "says"),
    [({"blocks": 5}, "has 6 blocks, this one 5"), ({"mean": (0.5, 0.5, 0.5)}, "or nothing, this")],
)
def test_a_span_that_spandrel_cannot_run_is_refused(config, says, tmp_path):
    net = random_net(SPAN, **({"blocks": 6} | config))
    with pytest.raises(InputError, match=says):
        espan.export(net, tmp_path / "net.safetensors")
    assert not [*tmp_path.iterdir()]


def test_without_spandrel_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(InputError, match=r"register_spandrel\(\) needs spandrel"):
        espan.register_spandrel()
