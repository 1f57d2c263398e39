"""Images of every kind to channels-first pixels and back, and image files."""
