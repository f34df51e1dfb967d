"""Prompt sets: pairs, splits, and the files they come from."""
