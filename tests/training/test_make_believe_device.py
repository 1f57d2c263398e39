"""The make-believe device: it raises where a GPU would, and works where a GPU would."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from espan import ESPAN
from tests.support.make_believe_device import DEVICE, DeviceTensor, make_believe

APART = "Expected all tensors to be on the same device, but found at least two devices"


@pytest.fixture(autouse=True)
def device():
    with make_believe() as device:
        yield device


def there(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape).to(DEVICE)


def written(change) -> torch.Tensor:
    x = there(4)
    change(x)
    return x


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: y + x,
        lambda x, y: y.add_(x),
        lambda x, y: x @ y,
        lambda x, y: torch.cat([x, y]),
        lambda x, y: torch.stack([x, y]),
        lambda x, y: torch.where(x > 0, x, y),
        lambda x, y: torch.add(x, 1, out=y),
        lambda x, y: nn.functional.conv2d(x[None, None], y[None, None]),
        lambda x, y: nn.functional.mse_loss(x, y),
        lambda x, y: torch._foreach_add_([x], [y]),
        lambda x, y: torch._foreach_lerp_([y], [x], 0.5),
        lambda x, y: y[x.long()],
        lambda x, y: torch.stack([x[0, 0], y[0, 0]]),
        lambda x, y: y[0, 0].add_(x[0, 0]),
    ],
)
def test_make_believe_device_raises_on_mixing(mix):
    x = there(2, 2)
    with pytest.raises(RuntimeError, match=f"{APART}, maia:0 and cpu!"):
        mix(x, torch.zeros(2, 2))
    with torch.inference_mode(), pytest.raises(RuntimeError, match=APART):
        mix(x.clone(), torch.zeros(2, 2))


def test_make_believe_device_raises_on_what_failed_on_a_gpu():
    """Adds merged weights on the device to weights of the next stage on the CPU."""
    before, after = (ESPAN(8, 1, 0, rep="espan").conv_1 for _ in range(2))
    before.to(DEVICE)
    with pytest.raises(RuntimeError, match=APART):
        after.set_kernel(*before.merged())


def test_make_believe_device_keeps_gradients_and_random_numbers_apart():
    x = there(2).requires_grad_()
    with pytest.raises(RuntimeError, match="device"):
        x.grad = torch.zeros(2)
    for draw in (
        lambda g: there(2).normal_(generator=g),
        lambda g: torch.rand(2, generator=g, device=DEVICE),
    ):
        with pytest.raises(RuntimeError, match="generator"):
            draw(torch.Generator())


@pytest.mark.parametrize("look", [lambda x: x.numpy(), np.asarray], ids=["numpy", "asarray"])
def test_make_believe_device_is_hidden_from_numpy(look):
    with pytest.raises(TypeError, match="can't convert maia:0 device type tensor to numpy"):
        look(there(2))
    assert look(there(2).cpu()).tolist() == [0, 1]


def test_make_believe_device_crosses_where_cuda_does():
    x = there(2, 2)
    assert x.device == DEVICE and (x * 2).device == DEVICE and type(x.cpu()) is torch.Tensor
    assert x[torch.tensor([1])].tolist() == [[2, 3]]
    assert (x + torch.tensor(1.0)).tolist() == [[1, 2], [3, 4]]
    assert torch.zeros(2, 2).copy_(x).tolist() == x.tolist()
    assert written(lambda x: x.copy_(torch.ones(4))).tolist() == [1] * 4
    assert written(lambda x: x.__setitem__(slice(1, 3), 7)).tolist() == [0, 7, 7, 3]
    assert written(lambda x: x[:2].add_(5)).tolist() == [5, 6, 2, 3]
    assert written(lambda x: x.__setitem__(x > 1, torch.tensor(0.0))).tolist() == [0, 1, 0, 0]
    assert float(x.sum()) == x.sum().item() == 6 and bool(x.isfinite().all())


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, device=DEVICE),
        lambda: torch.empty(2, device="maia:0"),
        lambda: torch.arange(2, device=DEVICE),
        lambda: torch.tensor([1, 2], device=DEVICE),
        lambda: torch.as_tensor([1, 2], device=DEVICE),
        lambda: torch.ones_like(torch.zeros(2), device=DEVICE),
        lambda: there(2).new_tensor([1, 2]),
        lambda: there(2).new_zeros(2),
        lambda: torch.eye(2, device=DEVICE)[0],
    ],
)
def test_make_believe_device_makes_tensors(make):
    assert isinstance(make(), DeviceTensor) and make().shape == (2,)
    assert type(torch.from_numpy(np.zeros(2))) is torch.Tensor
    assert type(torch.tensor([1, 2])) is torch.Tensor


def test_make_believe_device_takes_a_module_and_its_optimizer_goes_on():
    torch.manual_seed(0)
    ours, theirs = (nn.Conv2d(3, 4, 3, padding=1) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 8, 8)
    for net, device in ((ours, DEVICE), (theirs, torch.device("cpu"))):
        optimizer = torch.optim.Adam(net.parameters(), 0.1)
        weight = net.weight
        net.to(device)
        assert net.weight is weight and isinstance(weight, nn.Parameter)
        for _ in range(2):
            net.zero_grad()
            net(images.to(device)).square().mean().backward()
            assert weight.grad.device == device
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        assert optimizer.state[weight]["exp_avg"].device == device
    assert torch.equal(ours.weight.cpu(), theirs.weight)
    copied = copy.deepcopy(ours)
    copied.load_state_dict(theirs.state_dict())
    assert copied.bias.device == DEVICE and copied.bias.requires_grad
    with pytest.raises(RuntimeError, match=APART):
        ours(images)


def test_make_believe_device_saves_as_a_gpu_does():
    torch.save({"x": there(3)}, file := io.BytesIO())
    assert b"cuda:0" in file.getvalue()
    file.seek(0)
    assert torch.load(file, map_location="cpu", weights_only=True)["x"].tolist() == [0, 1, 2]
    torch.save(torch.zeros(3), file := io.BytesIO())
    assert b"cuda:0" not in file.getvalue()


def test_make_believe_device_casts_convolutions_under_autocast():
    conv = nn.Conv2d(3, 4, 3).to(DEVICE)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        assert conv(there(1, 3, 8, 8)).dtype == torch.bfloat16
    assert conv(there(1, 3, 8, 8)).dtype == torch.float32
