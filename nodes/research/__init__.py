"""Nodes that make, calibrate and judge vectors: for researchers."""
