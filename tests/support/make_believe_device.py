"""A fake device: mixing it with the CPU fails as it would on a GPU.

Inside `make_believe()`, `torch.device("maia", 0)` works: MAIA is a device type that PyTorch knows
by name but no build supports. Its tensors are computed on the CPU, and every operator applies
CUDA's rules for tensors on two devices:

- `.to`, `.cpu`, `copy_` and `load_state_dict` cross devices; nothing else does;
- CPU tensors without dimensions may enter elementwise operators, but not as outputs;
- CPU tensors may index device tensors, but not the other way around;
- a CPU generator cannot generate device tensors, and numpy cannot access device memory;
- `module.to` keeps the parameters, so that existing optimizers stay valid;
- `torch.save` stores "cuda:0" as the location of its tensors, as for a GPU.

It does not emulate GPU kernels or streams, and autocast only for convolutions.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import lightning_fabric
import torch
from lightning_fabric.accelerators import Accelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("maia", 0)

_aten = torch.ops.aten
_CROSSING = (_aten.copy_.default, _aten._to_copy.default)
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
# In addition to those that PyTorch marks as such.
_ELEMENTWISE = ("aten::_foreach_", "aten::fill", "aten::masked_fill", "aten::index_put")
# Storages of saved tensors, by address; kept alive so that no address is reused.
_saved: dict[int, torch.UntypedStorage] = {}


class DeviceTensor(Tensor):
    """A tensor on the make-believe device; `held` has its values.

    Autograd, which knows only the devices of this build, sees it on "meta".
    """

    device = property(lambda self: DEVICE)
    is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor):
        return Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )

    def __init__(self, held: Tensor):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, nullcontext())

    # With these two, `module.to` swaps the contents of a parameter and keeps the parameter.
    def __tensor_flatten__(self):
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner, _context, _size, _stride):
        return DeviceTensor(inner["held"])

    def __reduce_ex__(self, protocol):
        storage = self.held.untyped_storage()
        _saved[storage._cdata] = storage
        return self.held.__reduce_ex__(protocol)

    def __repr__(self, **_):
        return f"DeviceTensor({self.held})"

    def tolist(self):
        return self.held.tolist()

    def numpy(self, **_):
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu()")

    __array__ = numpy


class _Operators(TorchDispatchMode):
    """Intercepts operators that create device tensors."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, self)


class _Calls(TorchFunctionMode):
    """Intercepts calls that the other mode cannot: tensors made from numbers, and autocast."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.conv2d and torch.is_autocast_enabled(DEVICE.type):
            low = torch.get_autocast_dtype(DEVICE.type)
            args = [_each(lambda x: x.to(low), each) for each in args]
            kwargs = {key: _each(lambda x: x.to(low), each) for key, each in kwargs.items()}
        if func is Tensor.new_tensor:
            like, *args = args
            kwargs = {"dtype": like.dtype, "device": like.device} | kwargs
            func = torch.tensor
        if func in (torch.tensor, torch.as_tensor) and _is_there(kwargs.get("device")):
            return func(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


def _is_there(device) -> bool:
    # The C++ side of PyTorch reports "meta" as the device of these tensors.
    return device is not None and torch.device(device).type in (DEVICE.type, "meta")


def _each(change, value):
    """`value` with changed tensors, including those in lists and tuples."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_each(change, one) for one in value)
    return value


def _run(func, args: tuple, kwargs: dict, mode):
    """Runs one operator: checks the two-device rules, then computes on the CPU."""
    # Under inference_mode, operators that autograd decomposes arrive undecomposed.
    with mode:
        parts = func.decompose(*args, **kwargs)
    if parts is not NotImplemented:
        return parts
    known: dict[int, DeviceTensor] = {}
    strangers = []

    def held(each: Tensor) -> Tensor:
        if not isinstance(each, DeviceTensor):
            strangers.append(each)
            return each
        known[id(each.held)] = each
        return each.held

    inside = _each(held, args)
    named = {key: _each(held, value) for key, value in kwargs.items()}
    device = kwargs.get("device")
    there = bool(known) if device is None else _is_there(device)
    if (known or there) and func not in _CROSSING:
        _check(func, args, kwargs, strangers)
    if device is not None:
        named["device"] = "cpu" if there else device
    out = func(*inside, **named)
    if func is _aten.copy_.default:
        return args[0]

    def back(each: Tensor) -> Tensor:
        # In-place operators return the tensor that was passed in.
        if id(each) in known:
            return known[id(each)]
        return DeviceTensor(each) if there else each

    return _each(back, out)


def _check(func, args: tuple, kwargs: dict, strangers: list[Tensor]) -> None:
    """Raises RuntimeError where CUDA would; `strangers` are the arguments on the CPU."""
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a '{DEVICE}' generator device but found 'cpu' ({func})")
    if torch.Tag.inplace_view in func.tags:
        raise RuntimeError(f"{func}: views made in place are no part of the make-believe device")
    if not strangers or kwargs.get("device") is not None:
        return  # only the shapes of the tensors matter
    schema = func._schema
    allowed: list[Tensor] = []
    if schema.name in _INDEXING and isinstance(args[0], DeviceTensor):
        allowed += [each for each in args[1] if each is not None]
    if torch.Tag.pointwise in func.tags or schema.name.startswith(_ELEMENTWISE):
        values = [*zip(schema.arguments, args, strict=False)]
        values += [(a, kwargs[a.name]) for a in schema.arguments if a.name in kwargs]
        written: list[Tensor] = []
        for argument, value in values:
            if argument.alias_info is not None and argument.alias_info.is_write:
                _each(written.append, value)
        allowed += [x for x in strangers if not x.dim() and not any(x is w for w in written)]
    if not all(any(each is one for one in allowed) for each in strangers):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, "
            f"{DEVICE} and cpu! ({func})"
        )


class _Accelerator(Accelerator):
    """The accelerator interface of lightning-fabric."""

    def setup_device(self, device: torch.device) -> None:
        assert device == DEVICE

    def teardown(self) -> None:
        """Nothing to clean up."""

    @staticmethod
    def parse_devices(devices):
        return devices

    @staticmethod
    def get_parallel_devices(devices):
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return DEVICE.type


@contextmanager
def in_this_thread() -> Iterator[None]:
    """Enables the device in another thread than that of `make_believe`."""
    with _Operators(), _Calls():
        yield


@contextmanager
def make_believe() -> Iterator[torch.device]:
    """Enables the device in this thread, and for lightning-fabric."""
    fabric, location_tag = lightning_fabric.Fabric, torch.serialization.location_tag

    def fabric_of(**settings):
        if settings["accelerator"] == DEVICE.type:
            settings |= {"accelerator": _Accelerator(), "strategy": SingleDeviceStrategy(DEVICE)}
        return fabric(**settings)

    def tagged(storage):
        return "cuda:0" if storage._cdata in _saved else location_tag(storage)

    with (
        mock.patch.object(lightning_fabric, "Fabric", fabric_of),
        mock.patch.object(torch.serialization, "location_tag", tagged),
        _Operators(),
        _Calls(),
    ):
        try:
            yield DEVICE
        finally:
            _saved.clear()
