"""The folder of nodes, loaded as ComfyUI loads it, with stubs of its modules."""

import importlib.util
import sys
import types
import weakref

import numpy as np
import pytest
import torch

from espan import InputError, Upscaler, WeightsError, save
from espan.cli import main
from espan.exporting import comfyui
from tests.support.makers import noise, random_net


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    comfyui._upscaler.cache_clear()
    monkeypatch.setattr(
        comfyui, "Upscaler", lambda model, **options: Upscaler(model, device="cpu", **options)
    )
    yield
    comfyui._upscaler.cache_clear()


def load(folder):
    """Loads a folder of custom nodes like ComfyUI: `__init__.py`, then its two mappings."""
    spec = importlib.util.spec_from_file_location("custom_nodes.espan", folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.NODE_CLASS_MAPPINGS.keys() == module.NODE_DISPLAY_NAME_MAPPINGS.keys()
    return module.NODE_CLASS_MAPPINGS["EspanUpscale"]


def execute(node, **inputs):
    """Calls a node like ComfyUI: checks inputs against its declaration, calls its FUNCTION."""
    declared = node.INPUT_TYPES()["required"]
    for name, (kind, *more) in declared.items():
        if name not in inputs:
            inputs[name] = more[0]["default"] if more and "default" in more[0] else kind[0]
        if isinstance(kind, list):
            assert inputs[name] in kind
        elif kind in ("INT", "FLOAT"):
            assert more[0]["min"] <= inputs[name] <= more[0]["max"]
    results = getattr(node(), node.FUNCTION)(**inputs)
    assert isinstance(results, tuple) and len(results) == len(node.RETURN_TYPES)
    return results[0]


@pytest.fixture
def folder(tmp_path, weights):
    assert main(["export", weights, "--comfyui", str(tmp_path / "nodes"), "-q"]) == 0
    return tmp_path / "nodes"


def test_the_folder(folder, net):
    assert {path.name for path in folder.iterdir()} == {
        *("__init__.py", "requirements.txt", "tiny.safetensors")
    }
    node = load(folder)
    names = node.INPUT_TYPES()["required"]["model"][0]
    assert names[0] == "espan-x4" and {"tiny", "espan-x2-web"} <= {*names}
    batch = torch.from_numpy(noise(3, 6, 5, 3, dtype=np.float32))
    out = execute(node, image=batch, model="tiny", precision="fp32")
    up = Upscaler(net, device="cpu", dtype="fp32")
    for one, image in zip(out, batch, strict=True):
        assert torch.equal(one, torch.from_numpy(up(image.numpy())))
    assert execute(node, image=batch, model="tiny", scale=2.5, tile=16).shape == (3, 15, 12, 3)
    assert execute(node, image=batch[:1], model="espan-x2").shape == (1, 24, 20, 3)
    with pytest.raises(InputError, match="model: expected one of"):
        node().upscale(batch, "other")


def test_a_batch_is_streamed_image_by_image(folder, monkeypatch):
    alive, most = [], []

    class Counted:
        scale = 4

        def __call__(self, image, scale):
            result = torch.zeros(3, 4 * image.shape[1], 4 * image.shape[2])
            alive.append(weakref.ref(result))
            most.append(sum(each() is not None for each in alive))
            return result

    monkeypatch.setattr(comfyui, "_upscaler", lambda *options: Counted())
    monkeypatch.setattr(comfyui._upscaler, "cache_clear", lambda: None, raising=False)
    execute(load(folder), image=torch.zeros(100, 8, 8, 3))
    assert len(most) == 100 and max(most) <= 1


def test_progress_and_interruption_are_comfyuis(folder, monkeypatch):
    reported = []

    class StoppedError(Exception):
        pass

    class ProgressBar:
        def __init__(self, total):
            reported.append(total)

        def update(self, done):
            reported.append(done)

    def check():
        if len(reported) > 2:
            raise StoppedError

    for name, facts in (
        ("comfy", {}),
        ("comfy.utils", {"ProgressBar": ProgressBar}),
        ("comfy.model_management", {"throw_exception_if_processing_interrupted": check}),
    ):
        module = types.ModuleType(name)
        vars(module).update(facts)
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(StoppedError):
        execute(load(folder), image=torch.zeros(5, 4, 4, 3), model="tiny")
    assert reported == [5, 1, 1]


def test_nodes_without_own_weights(tmp_path):
    assert main(["export", "--comfyui", str(tmp_path / "nodes"), "-q"]) == 0
    assert {path.name for path in (tmp_path / "nodes").iterdir()} == {
        *("__init__.py", "requirements.txt")
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["espan-x4", "--comfyui", "nodes"], "model: espan-x4 is built in"),
        (["none.pth", "--comfyui", "nodes"], "none.pth: no such weights file"),
        (["--comfyui", "file"], "file: could not be created: "),
        (["--comfyui", "nodes", "-o", "a.onnx"], "output: cannot be given with --comfyui"),
        (["espan-x4"], "output: required"),
        (["-o", "a.onnx"], "model: required"),
    ],
    ids=str,
)
def test_invalid_exports_are_a_one_line_error(tmp_path, monkeypatch, arguments, message, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["export", *arguments]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("espan: ") and message in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_write_nodes(tmp_path):
    save(random_net(), tmp_path / "own.safetensors")
    assert comfyui.write_nodes(tmp_path / "a/b", tmp_path / "own.safetensors") == tmp_path / "a/b"
    assert "own" in load(tmp_path / "a/b").models
    with pytest.raises(WeightsError):
        comfyui.write_nodes(tmp_path / "c", tmp_path / "none.safetensors")
    assert not (tmp_path / "c").exists()
