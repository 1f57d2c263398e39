"""Animations: GIF, APNG, animated WebP and AVIF, read and written frame by frame."""

from espan.animation.convert import convert, upscale_animation
from espan.animation.reading import is_animated
from espan.animation.writing import SUFFIXES, format_of
from espan.execution.frames import Report

__all__ = ["SUFFIXES", "Report", "convert", "format_of", "is_animated", "upscale_animation"]
