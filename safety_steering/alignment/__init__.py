"""Carrying a direction from one space to another."""
