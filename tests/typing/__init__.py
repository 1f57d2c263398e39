"""Uses of the public names for mypy: correct ones with their types, and incorrect ones."""
