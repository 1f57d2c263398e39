"""A network at work: tiles, executors, CUDA graphs, results streamed row by row."""
