"""Converts images of every kind to channels-first pixels and back; reads and writes files."""
