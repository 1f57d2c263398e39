"""PyTorch names of dtypes, templates of file names, unsupported formats, shell completion."""

import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from espan import InputError, Size, Upscaler
from espan.cli import main
from espan.cli.completion import SCRIPTS
from espan.images import files
from espan.sizes import result_name
from tests.support.makers import noise, random_net


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)],
)
def test_pytorchs_names_of_dtypes(name, dtype, images, upscale):
    up = Upscaler(random_net(), device="cpu", dtype=name)
    assert up.dtype == dtype and up.options.dtype in ("fp32", "fp16", "bf16")
    assert upscale(images / "a.png", "--dtype", name) == 0


def test_names_of_results(images, upscale, tmp_path):
    assert upscale(images / "a.png", "--name", "{stem}@{scale}x") == 0
    assert (images / "a@4x.png").is_file()
    assert upscale(images, "-o", tmp_path / "out", "-s", "2", "--name", "{scale}-{stem}") == 0
    found = {str(each.relative_to(tmp_path / "out")) for each in (tmp_path / "out").rglob("*.*")}
    assert {"2-a.png", "2-a@4x.png", "deep/er/2-b.webp"} <= found
    assert result_name("{stem}_{scale}", "a{scale}", Size(width=9)) == "a{scale}_w9"


def test_equal_names_are_an_error_and_nothing_is_lost(images, upscale, tmp_path, capsys):
    files.write(images / "c.png", Image.fromarray(noise(4, 4, 3)))
    assert upscale(images, "-o", tmp_path / "out", "--name", "same") == 1
    assert "is already the result of" in capsys.readouterr().err


@pytest.mark.parametrize("template", ["", "{x}", "a/b", "a\\b", "{stem", "{stem.upper}", "{}"])
def test_wrong_templates(template):
    with pytest.raises(InputError, match="name: expected text with"):
        result_name(template, "a", 4)


def test_jfif_stays_jfif_beside_other_formats(tmp_path, upscale):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(noise(4, 4, 3)).save(folder / "a.jfif", "JPEG")
    Image.fromarray(noise(4, 4, 3)).save(folder / "a.ppm")
    assert upscale(folder, "-o", tmp_path / "out") == 0
    found = {each.name: Image.open(each).format for each in (tmp_path / "out").glob("a.*")}
    assert found == {"a.jfif": "JPEG", "a.png": "PNG"}


def test_unsupported_formats_are_one_log_line(images, upscale, tmp_path, caplog):
    for name in ("x.jp2", "deep/y.TGA", "z.ico"):
        (images / name).touch()
    with caplog.at_level("INFO", "espan"):
        assert upscale(images, "-o", tmp_path / "out") == 0
    (note,) = [each.getMessage() for each in caplog.records if "skipped" in each.getMessage()]
    assert "and 2 more: skipped, image format not supported (.ico, .jp2, .tga)" in note


@pytest.mark.parametrize("arguments", [["upscale", "a.png", "--scael", "3"], ["upscal"], ["eval"]])
def test_a_wrong_option_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith("espan") and "--help)" in line


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_a_missing_device_is_a_one_line_error(device, images, weights, capsys):
    if getattr(torch, device).is_available():
        pytest.skip(f"there is {device}")
    assert main(["upscale", str(images / "a.png"), "-n", weights, "--device", device]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"espan: device '{device}' is not available: ")


def completed(words: str) -> set[str]:
    """The completions that bash offers for the last of these words."""
    script = (
        f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _espan; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = f'eval "$({sys.executable} -m espan.cli completion bash)"; {script}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("espan upsc", {"upscale"}),
        ("espan upscale --max-s", {"--max-side"}),
        ("espan upscale --backend op", {"openvino"}),
        ("espan export espan-x4 -f on", {"onnx"}),
        ("espan completion --h", {"--help"}),
    ],
)
def test_bash_completes(words, expected):
    assert completed(words) == expected


@pytest.mark.parametrize("shell", SCRIPTS)
def test_every_shell_has_a_script_with_every_option(shell, capsys):
    assert main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert "upscale" in shown and "max-side" in shown and "openvino" in shown
