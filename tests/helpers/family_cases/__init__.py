"""Tiny models of every family of the model map, as a table."""

from .case import FamilyCase, Tokens
from .image import IMAGE_CASES
from .video import VIDEO_CASES

CASES = {case.name: case for case in (*VIDEO_CASES, *IMAGE_CASES)}

__all__ = ["CASES", "FamilyCase", "Tokens"]
