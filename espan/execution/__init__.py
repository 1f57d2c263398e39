"""Runs networks on images: tiles, executors, CUDA graphs, row streaming."""
