"""Tiny checkpoints, vectors and graphs in the real formats."""
