"""`espan.upscale` and `Upscaler` return the kind of image they get and do not modify the input."""

import numpy as np
import pytest
import torch
from PIL import Image

import espan
from espan import EspanError, InputError, Upscaler
from espan.errors import DeviceError
from espan.images import files
from espan.images.resize import resize
from tests.support.makers import noise, random_net

NET = random_net()
UP = Upscaler(NET, device="cpu", dtype="fp32")
H, W = 6, 9


@torch.no_grad()
def through_net(pixels: np.ndarray, white: float) -> np.ndarray:
    """(H, W, 3) in 0..white -> the network's output in 0..1, neither clamped nor rounded."""
    x = torch.from_numpy(pixels.astype(np.float32) / np.float32(white)).permute(2, 0, 1)[None]
    return NET(x)[0].permute(1, 2, 0).double().numpy()


def truth(pixels: np.ndarray, white: float) -> np.ndarray:
    return through_net(pixels, white).clip(0, 1) * white


DTYPES = {np.uint8: 255, np.uint16: 65535, np.float16: 1, np.float32: 1, np.float64: 1}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_arrays_are_rounded_not_cut(dtype):
    image, white = noise(H, W, 3, dtype=dtype), DTYPES[dtype]
    out = UP(image)
    assert out.dtype == dtype and out.shape == (4 * H, 4 * W, 3)
    # Half a level plus float32 error: truncation would be off by a full level.
    step = 0.5 if white > 1 else np.finfo(dtype).eps
    assert np.abs(out - truth(image, white)).max() <= step + 4e-6 * white


@pytest.mark.parametrize(("dtype", "low"), [(np.uint8, 200), (np.uint16, 50000)])
def test_rounding_has_no_bias(dtype, low):
    image = noise(16, 16, 3, dtype=dtype)
    error = UP(image) - truth(image, DTYPES[dtype])
    assert abs(error.mean()) < 0.02  # truncation would give -0.5
    assert UP(image).max() > low  # and not because all values are small


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (4,)], ids=str)
def test_array_layout_and_dtype(channels, dtype):
    image = noise(H, W, *channels, dtype=dtype)
    out = UP(image)
    assert out.shape == (4 * H, 4 * W, *channels) and out.dtype == dtype


TENSORS = [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64]


def tensor(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    if dtype.is_floating_point:
        return torch.from_numpy(noise(*shape, dtype=np.float64)).to(dtype)
    return torch.from_numpy(noise(*shape, dtype=getattr(np, str(dtype).split(".")[1])))


@pytest.mark.parametrize("dtype", TENSORS, ids=str)
@pytest.mark.parametrize("shape", [(1, H, W), (2, H, W), (3, H, W), (4, H, W)], ids=str)
def test_tensor_is_like_the_array(shape, dtype):
    image = tensor(*shape, dtype=dtype)
    out = UP(image)
    assert out.shape == (shape[0], 4 * H, 4 * W) and out.dtype == dtype
    if dtype != torch.bfloat16:
        expected = UP(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        np.testing.assert_array_equal(out.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("dtype", TENSORS, ids=str)
@pytest.mark.parametrize("n", [1, 3])
def test_batch_is_its_images(n, dtype):
    batch = tensor(n, 3, H, W, dtype=dtype)
    out = UP(batch)
    assert out.shape == (n, 3, 4 * H, 4 * W) and out.dtype == dtype
    for one, expected in zip(out, batch, strict=True):
        assert torch.equal(one, UP(expected))


def test_empty_batch():
    assert UP(torch.zeros(0, 3, H, W)).shape == (0, 3, 4 * H, 4 * W)


@pytest.mark.gpu
def test_tensor_stays_on_its_device():
    image = tensor(3, H, W, dtype=torch.uint8)
    for device in ("cpu", "cuda"):
        up = Upscaler(NET, device=device, dtype="fp32")
        for where in ("cpu", "cuda"):
            out = up(image.to(where))
            assert out.device.type == where
            assert (out.cpu().int() - UP(image).int()).abs().max() <= 1


@pytest.mark.parametrize("kind", [list, tuple])
def test_list_gives_a_list(kind):
    images = kind([noise(3, 4, 3), torch.rand(3, 2, 2), Image.new("L", (5, 5))])
    out = UP(images)
    assert type(out) is kind
    assert [type(each) for each in out] == [np.ndarray, torch.Tensor, Image.Image]
    np.testing.assert_array_equal(out[0], UP(images[0]))


@pytest.mark.parametrize("as_text", [True, False], ids=["str", "path"])
def test_path_gives_an_image(tmp_path, as_text):
    image = Image.fromarray(noise(H, W, 3))
    path = files.write(tmp_path / "a.png", image)
    out = UP(str(path) if as_text else path)
    np.testing.assert_array_equal(np.asarray(out), np.asarray(UP(image)))


def test_path_to_a_file(tmp_path, weights):
    image = Image.fromarray(noise(H, W, 3))
    path = files.write(tmp_path / "a.png", image)
    written = espan.upscale(
        path, device="cpu", model=weights, dtype="fp32", output=tmp_path / "b.png"
    )
    assert written == tmp_path / "b.png"
    np.testing.assert_array_equal(np.asarray(Image.open(written)), np.asarray(UP(image)))


@pytest.mark.parametrize("image", [noise(4, 4, 3), [noise(4, 4, 3)]], ids=["array", "list"])
def test_output_is_for_paths(tmp_path, image):
    with pytest.raises(InputError, match="output: "):
        UP(image, output=tmp_path / "b.png")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("scale", [1, 1.25, 1.5, 2, 3, 3.5, 3.99, 4, np.float32(2.5)])
@pytest.mark.parametrize("size", [(1, 1), (1, 13), (13, 1), (7, 11)], ids=str)
def test_size_is_exact_for_every_scale(size, scale):
    out = UP(noise(*size, 3), scale)
    assert out.shape == (round(size[0] * scale), round(size[1] * scale), 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_other_scales_are_a_good_downscale_of_the_networks(dtype):
    image, white = noise(H, W, 3, dtype=dtype), DTYPES[dtype]
    size = round(H * 2.5), round(W * 2.5)
    expected = resize(truth(image, white), size).clip(0, white)
    tolerance = {np.uint8: 1.01, np.uint16: 2, np.float16: 2e-3}.get(dtype, 1e-5)
    assert np.abs(UP(image, 2.5) - expected).max() <= tolerance


@pytest.mark.parametrize("model_scale", [2, 3, 4])
def test_scale_is_the_models_by_default(model_scale):
    up = Upscaler(random_net(scale=model_scale), device="cpu")
    assert up.scale == model_scale
    assert up(noise(5, 6, 3)).shape == (5 * model_scale, 6 * model_scale, 3)


@pytest.mark.parametrize("scale", [0, -1, 0.5, 64.1, float("nan"), float("inf"), "4", True])
def test_invalid_scales_are_refused(scale):
    with pytest.raises(InputError, match="scale: expected"):
        espan.upscale(noise(4, 4, 3), scale, device="cpu", model=NET)


def test_grey_stays_grey_and_equals_the_mean_of_three():
    grey = noise(H, W)
    expected = through_net(np.repeat(grey[..., None], 3, 2), 255).mean(2).clip(0, 1) * 255
    assert np.abs(UP(grey) - expected).max() <= 0.501


@pytest.mark.parametrize("scale", [4, 2.5])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_input_is_not_changed(channels, scale):
    image = noise(H, W, channels)
    image[..., -1] = image[..., -1] // 128 * 255
    before = image.copy()
    UP(image, scale)
    np.testing.assert_array_equal(image, before)


def test_network_given_is_not_changed():
    net = random_net().train()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    Upscaler(net, device="cpu")(noise(4, 4, 3))
    assert net.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"device": "cuda:99"}, DeviceError),
        ({"device": "abacus"}, DeviceError),
        ({"dtype": "int8"}, DeviceError),
        ({"backend": "magic"}, DeviceError),
        ({"tile": 0}, InputError),
        ({"tile": "big"}, InputError),
        ({"tile": (8,)}, InputError),
        ({"tile": True}, InputError),
        ({"model": "none.pth"}, EspanError),
        ({"model": torch.nn.Conv2d(3, 3, 1)}, EspanError),
    ],
    ids=lambda o: str(o)[:30],
)
def test_invalid_options_are_refused(option, error):
    with pytest.raises(error):
        espan.upscale(noise(4, 4, 3), **({"model": NET, "device": "cpu"} | option))


def test_a_rewritten_weights_file_is_another_model(tmp_path):
    from espan.checkpoints.weights import save

    path, image = tmp_path / "net.safetensors", noise(H, W, 3)
    results = []
    for seed in range(2):
        save(random_net(seed=seed), path)
        results.append(espan.upscale(image, device="cpu", model=path))
    assert (results[0] != results[1]).any()


@pytest.mark.parametrize(("size", "scale"), [((H, W, 3), 4), ((H, W, 4), 4), ((H, W, 3), 2.5)])
def test_progress_ends_at_its_total(size, scale):
    seen = []
    Upscaler(NET, device="cpu", tile=4)(
        noise(*size), scale, progress=lambda *each: seen.append(each)
    )
    done, totals = zip(*seen, strict=True)
    assert len(set(totals)) == 1 and done[-1] == totals[0]
    assert list(done) == sorted(set(done))


def test_same_result_twice():
    image = noise(H, W, 4)
    np.testing.assert_array_equal(UP(image), Upscaler(NET, device="cpu", dtype="fp32")(image))
