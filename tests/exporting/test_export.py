"""Exported files reproduce the network's results, have metadata, and are written atomically."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import espan
from espan import SPAN, SPANF, InputError, OutputError, WeightsError
from espan.backends import onnx_files
from espan.checkpoints import weights as espan_weights
from espan.cli import main
from espan.exporting import export
from tests.support.makers import random_net

# Much smaller than trained networks: PyTorch's exporters take seconds anyway.
NETWORKS = {
    "espan": lambda: random_net(channels=12, blocks=2, last_convs=2),
    "span": lambda: random_net(SPAN, channels=8, blocks=6, scale=2),
    "spanf": lambda: random_net(SPANF, channels=8, blocks=2, scale=3),
}
SHAPES = ((1, 3, 1, 1), (1, 3, 19, 7), (1, 3, 40, 33))


def image(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def runtime():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnxruntime")


def session(runtime, path: Path):
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_gives_the_networks_image_at_any_size(name, tmp_path, runtime):
    net = NETWORKS[name]()
    made = espan.export(net, tmp_path / "net.onnx")
    assert made.format == "onnx" and made.error < 1e-5
    run = session(runtime, made.path)
    for shape in SHAPES:
        x = image(*shape)
        (y,) = run.run(["output"], {"input": x.numpy()})
        np.testing.assert_allclose(y, net(x).detach(), atol=1e-5, err_msg=str(shape))


def test_onnx_files_have_the_inputs_that_video_programs_expect(tmp_path, runtime):
    """Float RGB, one image, named dimensions, standard operators only, metadata."""
    import onnx

    made = espan.export("espan-x4", tmp_path / "net.onnx")
    model = onnx.load(made.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", onnx_files.OPSET)]
    assert not model.functions
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    assert metadata["arch"] == "ESPAN" and metadata["scale"] == "4" and metadata["radius"] == "23"
    assert metadata["licence"] == "Apache-2.0" and "ATTRIBUTION" in metadata["training_data"]
    assert json.loads(metadata["config"])["channels"] == 32
    run = session(runtime, made.path)
    (entry,), (out) = run.get_inputs(), run.get_outputs()[0]
    assert (entry.name, entry.type, entry.shape) == (
        "input",
        "tensor(float)",
        [1, 3, "height", "width"],
    )
    assert (out.name, out.type, out.shape[:2]) == ("output", "tensor(float)", [1, 3])


def test_onnx_of_one_size_takes_no_other(tmp_path, runtime, net):
    made = espan.export(net, tmp_path / "net.onnx", size=(9, 14))
    run = session(runtime, made.path)
    assert run.get_inputs()[0].shape == [1, 3, 9, 14]
    assert run.get_outputs()[0].shape == [1, 3, 36, 56]
    with pytest.raises(Exception, match=r"[Ii]nvalid dimensions"):
        run.run(None, {"input": image(1, 3, 9, 15).numpy()})


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".safetensors"])
def test_float16_halves_the_file_and_keeps_the_image(suffix, tmp_path, runtime):
    full, half = (
        espan.export("espan-x4", tmp_path / f"{fp16}{suffix}", fp16=fp16) for fp16 in (False, True)
    )
    assert half.path.stat().st_size < 0.62 * full.path.stat().st_size
    assert half.error < export.ALLOWED[torch.float16] < 3 / 255
    if suffix == ".onnx":  # computes in float16, images stay float32
        assert session(runtime, half.path).get_inputs()[0].type == "tensor(float)"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_gives_the_networks_image_at_any_size(name, tmp_path):
    net = NETWORKS[name]()
    made = espan.export(net, tmp_path / "net.pt2")
    run = torch.export.load(made.path).module()
    for shape in (*SHAPES, (3, 3, 5, 6)):
        x = image(*shape)
        torch.testing.assert_close(run(x), net(x), atol=1e-5, rtol=0)
    with zipfile.ZipFile(made.path) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("espan.json"))
        assert json.loads(archive.read(metadata))["scale"] == str(net.scale)


@pytest.mark.parametrize("name", NETWORKS)
def test_safetensors_load_again(name, tmp_path):
    net = NETWORKS[name]()
    made = espan.export(net, tmp_path / "net.safetensors")
    again = espan.load(made.path)
    assert type(again) is type(net)
    torch.testing.assert_close(again(image(1, 3, 9, 8)), net(image(1, 3, 9, 8)))


@pytest.mark.parametrize("name", NETWORKS)
def test_notes_of_any_name_are_kept_and_not_interpreted(name, tmp_path):
    net = NETWORKS[name]()
    notes = {"dtype": "a", "net": "b", "path": "c", "licence": "d", "scale": "9", "espan": "{}"}
    source = tmp_path / "source.safetensors"
    source.write_bytes(espan_weights.to_bytes(net, None, notes))
    made = espan.export(source, tmp_path / "net.safetensors", fp16=True)
    with safe_open(made.path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["net"] == "b" and metadata["licence"] == "d"
    # A SPAN file for other programs has these keys of its own; the rest is the same description.
    assert metadata["scale"] == str(net.scale) if "radius" in metadata else "espan" in metadata
    assert espan.load(made.path).scale == net.scale


def test_a_network_in_train_form_is_folded_first(tmp_path):
    net = random_net(rep="espan")
    made = espan.export(net, tmp_path / "net.pt2")
    x = image(1, 3, 9, 8)
    torch.testing.assert_close(
        torch.export.load(made.path).module()(x), espan.fold(net)(x), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_no_folder_of_this_machine_is_in_a_file(suffix, tmp_path, net, runtime):
    path = espan.export(net, tmp_path / f"net{suffix}").path
    if suffix == ".pt2":
        with zipfile.ZipFile(path) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    else:
        content = path.read_bytes()
    assert str(Path(espan.__file__).parent).encode() not in content
    assert b".py" not in content


def test_a_file_that_gives_another_image_is_not_kept(tmp_path, net, monkeypatch):
    def wrong(_net, _dtype, _size, _notes, path):
        espan.save(random_net(seed=1), path)

    path = tmp_path / "net.safetensors"
    path.write_bytes(b"what was there")
    monkeypatch.setattr(export, "_write_safetensors", wrong)
    with pytest.raises(OutputError, match=r"net\.safetensors: its results differ .* 0\.0001"):
        espan.export(net, path)
    assert path.read_bytes() == b"what was there"
    assert [each.name for each in tmp_path.iterdir()] == ["net.safetensors"]


def test_weights_that_overflow_float16_are_refused(tmp_path, net):
    with torch.no_grad():
        net.conv_1.weight.mul_(1e5)
    with pytest.raises(OutputError, match=r"differ from the network's by (nan|inf) "):
        espan.export(net, tmp_path / "net.pt2", fp16=True)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("net.engine", {}, r"net\.engine: expected a name ending in \.onnx or \.pt2 or \.safetens"),
        ("net", {"format": "onnx"}, r"expected a name ending in \.onnx"),
        ("net.onnx", {"format": "torch"}, r"expected a name ending in \.pt2"),
        ("net.onnx", {"format": "tensorrt"}, "format: expected one of onnx, torch, safetensors"),
        ("net.onnx", {"size": (0, 4)}, r"size: expected \(height, width\)"),
        ("net.onnx", {"size": (4,)}, r"size: expected \(height, width\)"),
        ("net.onnx", {"size": 64}, r"size: expected \(height, width\)"),
        ("net.safetensors", {"size": (4, 4)}, "for onnx or torch only"),
    ],
)
def test_wrong_arguments_are_named(name, options, message, tmp_path, net):
    with pytest.raises(InputError, match=message):
        espan.export(net, tmp_path / name, **options)
    assert not [*tmp_path.iterdir()]


def test_wrong_models_are_named(tmp_path):
    with pytest.raises(WeightsError, match="no such weights file"):
        espan.export("espan-x5", tmp_path / "net.onnx")
    with pytest.raises(InputError, match="expected a network of espan, got Linear"):
        espan.export(torch.nn.Linear(1, 1), tmp_path / "net.onnx")


def test_a_missing_package_is_named_with_its_extra(tmp_path, net, monkeypatch, capsys, weights):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"export to ONNX needs onnx: pip install 'espan\[expo"):
        espan.export(net, tmp_path / "net.onnx")
    assert main(["export", weights, "-o", str(tmp_path / "net.onnx")]) == 2
    assert "pip install 'espan[export]'" in capsys.readouterr().err
    assert not [each for each in tmp_path.iterdir() if each.is_file()]


def test_the_command_writes_a_file_and_prints_its_error(tmp_path, weights, capsys):
    path = tmp_path / "net.pt2"
    assert main(["export", weights, "-o", str(path), "--size", "9x14"]) == 0
    shown = capsys.readouterr()
    assert (
        shown.out == ""
        and "differs from the network by at most" in shown.err
        and "net.pt2 torch" in shown.err
    )
    assert torch.export.load(path).module()(image(1, 3, 9, 14)).shape == (1, 3, 36, 56)


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        (["-o", "net.xyz"], 2),
        (["-o", "net.onnx", "-f", "tensorrt"], 2),
        (["-o", "net.onnx", "--size", "9"], 2),
        (["-o", "net.onnx", "--size", "9x9", "--dynamic"], 2),
        (["-o", "nowhere/net.safetensors"], 1),
        ([], 2),
    ],
    ids=str,
)
def test_the_commands_exit_codes(rest, code, tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        got = main(["export", weights, *rest])
    except SystemExit as refused:  # from argparse
        got = refused.code
    assert got == code
    assert "Traceback" not in capsys.readouterr().err
    assert not [each for each in tmp_path.iterdir() if each.is_file()]
