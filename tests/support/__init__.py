"""Shared by tests: makers of images and networks, fakes, contracts."""
