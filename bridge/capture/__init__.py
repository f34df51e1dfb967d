"""Capturing hidden states over a prompt set."""
