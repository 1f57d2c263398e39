"""The CUDA kernel's door; so far it holds the reason why it refuses."""

REASON = "no CUDA kernel is written for this op yet"
