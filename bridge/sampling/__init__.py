"""Sampling many prompts alike."""
