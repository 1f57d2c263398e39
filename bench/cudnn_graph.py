"""The network as cuDNN graphs, layer by layer, to compare cuDNN's fusion with our kernels.

One graph per convolution, with the bias and the following operation (SiLU, gate or sum) as its
epilogue, through nvidia-cudnn-frontend. PyTorch does the pixel shuffle.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from espan.backends.lowering import lower
from espan.backends.program import IMAGE, Normalise, Step, Tail, unfused
from espan.networks.network import Network

# Channels are zero-padded to a multiple of this, as cuDNN requires for float16.
GROUP = 8


class CudnnNetwork:
    """`CudnnNetwork(net, x)(x)` equals `net(x)`: x (N, 3, H, W) float16 in channels_last memory.

    net: folded, on a GPU, in float16. The graphs are built once for the size of `x`.
    Raises ImportError without the package, and cuDNN's errors if it has no engine for a layer.
    """

    def __init__(self, net: Network, x: Tensor):
        import cudnn

        self.cudnn, self.size = cudnn, (x.shape[0], *x.shape[2:])
        self.handle = cudnn.create_handle()
        self.device, self.scale = x.device, net.scale
        self.steps = [(step, self._layers(step)) for step in unfused(lower(net))]

    def __call__(self, x: Tensor) -> Tensor:
        values = {IMAGE: x}
        if self.device.type == "cuda":
            stream = torch.cuda.current_stream(self.device).cuda_stream
            self.cudnn.set_stream(handle=self.handle, stream=stream)
        for step, layers in self.steps:
            inputs = [_filled(values[name]) for name in step.reads]
            if isinstance(step, Normalise):
                values[step.makes] = step.eager(values[step.source])
            elif isinstance(step, Tail):
                total = None
                for layer, one in zip(layers, inputs, strict=False):
                    total = layer(one, total)
                values[step.makes] = F.pixel_shuffle(layers[-1](total), self.scale)
            else:
                values[step.makes] = layers[0](*inputs)
        return values[self.steps[-1][0].makes]

    def _layers(self, step: Step) -> list["Layer"]:
        if isinstance(step, Normalise):
            return []
        if isinstance(step, Tail):
            first, *others = step.weights
            sums = [Layer(self, first, step.bias)]
            sums += [Layer(self, weight, None, "add") for weight in others]
            return [*sums, Layer(self, step.up_weight, step.up_bias)]
        return [Layer(self, step.weight, step.bias, "gate" if step.gate else step.act)]


class Layer:
    """One graph: conv(x) + bias, then nothing, SiLU, or the gate or sum with a second input.

    weight (O, C, k, k), bias (O,) or None; inputs and result (N, C, H, W) in channels_last memory.
    """

    def __init__(self, network: CudnnNetwork, weight: Tensor, bias, after: str = "none"):
        cudnn, (n, height, width) = network.cudnn, network.size
        self.handle, self.after = network.handle, after
        out, k = len(weight), weight.shape[-1]
        self.weight = _filled(weight).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.view(1, -1, 1, 1)
        self.like = torch.empty(n, height, width, out, dtype=weight.dtype, device=network.device)
        single = cudnn.data_type.FLOAT
        graph = cudnn.pygraph(
            handle=network.handle,
            io_data_type=cudnn.data_type.HALF,
            intermediate_data_type=single,
            compute_data_type=single,
        )

        def tensor(channels: int, rows: int, columns: int, count: int):
            strides = [rows * columns * channels, 1, columns * channels, channels]
            return graph.tensor(dim=[count, channels, rows, columns], stride=strides)

        self.x = tensor(self.weight.shape[1], height, width, n)
        self.w = tensor(self.weight.shape[1], k, k, out)
        same = {"padding": [k // 2] * 2, "stride": [1, 1], "dilation": [1, 1]}
        y = graph.conv_fprop(image=self.x, weight=self.w, **same)
        if self.bias is not None:
            self.b = tensor(out, 1, 1, 1)
            y = graph.bias(input=y, bias=self.b)
        if after in ("gate", "add"):
            self.other = tensor(out, height, width, n)
        if after == "silu":
            y = graph.swish(input=y)
        elif after == "add":
            y = graph.add(a=y, b=self.other)
        elif after == "gate":
            self.half = tensor(1, 1, 1, 1)
            opened = graph.sub(a=graph.sigmoid(input=y), b=self.half)
            y = graph.mul(a=graph.add(a=y, b=self.other), b=opened)
        self.y = y.set_output(True).set_data_type(cudnn.data_type.HALF)
        graph.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        self.graph = graph
        self.workspace = torch.empty(
            max(1, graph.get_workspace_size()), dtype=torch.uint8, device=network.device
        )

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        out = torch.empty_like(self.like).permute(0, 3, 1, 2)
        given = {self.x: x, self.w: self.weight, self.y: out}
        if self.bias is not None:
            given[self.b] = self.bias
        if self.after in ("gate", "add"):
            given[self.other] = other
        if self.after == "gate":
            given[self.half] = self.weight.new_full((1, 1, 1, 1), 0.5)
        self.graph.execute(given, self.workspace, handle=self.handle)
        return out


def _filled(x: Tensor) -> Tensor:
    """x with channels zero-padded to a multiple of GROUP; x itself if no padding is needed."""
    missing = -x.shape[1] % GROUP
    if not missing:
        return x
    return F.pad(x, (0, 0, 0, 0, 0, missing)).contiguous(memory_format=torch.channels_last)
