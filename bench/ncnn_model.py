"""Writes an ESPAN network as ncnn's two files: the graph as text, the weights in graph order."""

import struct
from pathlib import Path

from torch import nn

from espan.networks.espan import ESPAN

ADD, SUBTRACT, MULTIPLY = 0, 1, 2


class _Graph:
    """Lines of the graph; ncnn requires a Split layer for values with several readers."""

    def __init__(self):
        self.lines: list[str] = []
        self.blobs = 0
        self.weights = b""

    def layer(self, kind: str, inputs: list[str], outputs: int = 1, options: str = "") -> list[str]:
        names = [f"{len(self.lines)}_{i}" for i in range(outputs)]
        counts = f"{len(inputs)} {outputs}"
        head = f"{kind} l{len(self.lines)} {counts}"
        self.lines.append(" ".join([head, *inputs, *names, options]).rstrip())
        self.blobs += outputs
        return names

    def conv(self, x: str, conv: nn.Conv2d) -> str:
        weight = conv.weight.detach().float().numpy()
        count, _, kernel, _ = weight.shape
        options = f"0={count} 1={kernel} 4={kernel // 2} 5=1 6={weight.size}"
        # Flag 0: float32 weights follow.
        self.weights += struct.pack("<I", 0) + weight.astype("<f4").tobytes()
        self.weights += conv.bias.detach().float().numpy().astype("<f4").tobytes()
        return self.layer("Convolution", [x], options=options)[0]

    def block(self, x: str, convs) -> str:
        hidden, residual = self.layer("Split", [x], 2)
        for conv in convs[:-1]:
            hidden = self.layer("Swish", [self.conv(hidden, conv)])[0]
        last, copy = self.layer("Split", [self.conv(hidden, convs[-1])], 2)
        total = self.layer("BinaryOp", [last, residual], options=f"0={ADD}")[0]
        sigmoid = self.layer("Sigmoid", [copy])[0]
        centred = self.layer("BinaryOp", [sigmoid], options=f"0={SUBTRACT} 1=1 2=0.5")[0]
        return self.layer("BinaryOp", [total, centred], options=f"0={MULTIPLY}")[0]


def write(net: ESPAN, folder: Path) -> tuple[Path, Path]:
    """Writes the files (graph, weights) to `folder`; the input is named in0, the output out0."""
    graph = _Graph()
    (image,) = graph.layer("Input", [])
    feature, to_tail = graph.layer("Split", [graph.conv(image, net.conv_1)], 2)
    first, first_to_tail = graph.layer("Split", [graph.block(feature, net.blocks[0].convs)], 2)
    last = first
    for block in net.blocks[1:]:
        last = graph.block(last, block.convs)
    last, last_to_tail = graph.layer("Split", [last], 2)
    tail = [to_tail, graph.conv(last, net.conv_2), first_to_tail, last_to_tail]
    (cat,) = graph.layer("Concat", tail, options="0=0")
    up = graph.conv(graph.conv(cat, net.conv_cat), net.upsampler)
    (out,) = graph.layer("PixelShuffle", [up], options=f"0={net.scale}")
    text = "\n".join(["7767517", f"{len(graph.lines)} {graph.blobs}", *graph.lines, ""])
    for inside, outside in ((image, "in0"), (out, "out0")):
        text = text.replace(f" {inside} ", f" {outside} ").replace(f" {inside}\n", f" {outside}\n")
    param, weights = folder / "net.param", folder / "net.bin"
    param.write_text(text)
    weights.write_bytes(graph.weights)
    return param, weights
