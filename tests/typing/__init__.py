"""Uses of the public names that mypy reads: right ones with their types, and wrong ones."""
