from espan_kernels.span_gate.reference import reference as span_gate

__all__ = ["span_gate"]
