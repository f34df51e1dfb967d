"""Directions of its own, and their relatives."""
