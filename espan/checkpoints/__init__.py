"""Weights files: this package's own, foreign ones, and how untrusted ones are read."""
