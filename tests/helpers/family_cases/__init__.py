"""Tiny models of every family of the model map, as a table."""

from family_cases.case import FamilyCase, Tokens
from family_cases.image import IMAGE_CASES
from family_cases.video import VIDEO_CASES

CASES = {case.name: case for case in (*VIDEO_CASES, *IMAGE_CASES)}

__all__ = ["CASES", "FamilyCase", "Tokens"]
