"""Fused operators of the SPAN family, each defined by an eager PyTorch expression."""

from espan_kernels.span_gate import span_gate

__all__ = ["span_gate"]
