"""The cuDNN graph peer, with a fake cudnn package that computes on the CPU."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench import peers
from bench.cudnn_graph import CudnnNetwork
from espan import ESPAN, SPAN, SPANF
from tests.support.makers import random_net


class Value:
    """A tensor of a graph: a function of the values passed at execution."""

    def __init__(self, compute=None, dim=None, stride=None):
        self.compute, self.dim, self.stride = compute, dim, stride

    def set_output(self, _):
        return self

    def set_data_type(self, _):
        return self


class Graph:
    """The `cudnn.pygraph` methods used by the peer, in float32 on the host."""

    def __init__(self, **kinds):
        self.outputs, self.built = [], False

    def tensor(self, dim, stride):
        return Value(dim=dim, stride=stride)

    def _made(self, function, *inputs):
        return Value(lambda given: function(*(self._get(each, given) for each in inputs)))

    def _get(self, value, given):
        if value.compute:
            return value.compute(given)
        tensor = given[value]
        assert list(tensor.shape) == value.dim
        for size, want, got in zip(value.dim, value.stride, tensor.stride(), strict=True):
            assert size == 1 or want == got, "channels_last memory"
        return tensor.float()

    def conv_fprop(self, image, weight, padding, stride, dilation):
        assert (stride, dilation) == ([1, 1], [1, 1])
        return self._made(lambda x, w: F.conv2d(x, w, padding=padding), image, weight)

    def bias(self, input, bias):
        return self.add(input, bias)

    def add(self, a, b):
        return self._made(torch.add, a, b)

    def sub(self, a, b):
        return self._made(torch.sub, a, b)

    def mul(self, a, b):
        return self._made(torch.mul, a, b)

    def sigmoid(self, input):
        return self._made(torch.sigmoid, input)

    def swish(self, input):
        return self._made(F.silu, input)

    def build(self, _):
        self.built = True

    def get_workspace_size(self):
        return 0

    def execute(self, given, workspace, handle):
        assert self.built
        [out] = [value for value in given if value.compute]
        given[out].copy_(out.compute(given))


@pytest.fixture
def cudnn(monkeypatch):
    names = SimpleNamespace(HALF=1, FLOAT=2)
    library = SimpleNamespace(
        pygraph=Graph,
        data_type=names,
        heur_mode=SimpleNamespace(A=1, FALLBACK=2),
        create_handle=object,
    )
    monkeypatch.setitem(sys.modules, "cudnn", library)


@pytest.mark.parametrize("make", [ESPAN, SPAN, SPANF])
@torch.inference_mode()
def test_equals_the_network(cudnn, make):
    net = random_net(make, scale=3, channels=16, blocks=2)
    x = torch.rand(2, 3, 9, 13).contiguous(memory_format=torch.channels_last)
    got, want = CudnnNetwork(net, x)(x), net(x)
    assert got.shape == want.shape
    assert (got - want).abs().max() < 1e-4 * want.abs().max()


def test_absent_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cudnn", None)
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(peers.AbsentError, match="cudnn"):
        peers.cudnn_graph(random_net(), pixels, torch.device("cpu"))
