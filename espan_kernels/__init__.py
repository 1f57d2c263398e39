"""Fused operators for SPAN networks, each defined by an eager PyTorch expression."""

from espan_kernels.conv3x3 import conv3x3
from espan_kernels.conv9x9_head import conv9x9_head
from espan_kernels.dct2d import dct2, dct_l1
from espan_kernels.layout import pack_weight
from espan_kernels.op import OPS, explain
from espan_kernels.spab import spab
from espan_kernels.span_gate import span_gate
from espan_kernels.tail import tail

__all__ = [
    "OPS",
    "conv3x3",
    "conv9x9_head",
    "dct2",
    "dct_l1",
    "explain",
    "pack_weight",
    "spab",
    "span_gate",
    "tail",
]
