"""Directions carried from a language model."""
