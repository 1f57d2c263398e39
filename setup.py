"""Metadata lives in pyproject.toml; this file is the place of the one build step, the kernels."""

from setuptools import setup

setup()
