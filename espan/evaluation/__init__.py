"""Image quality: metrics and benchmarks."""
