"""Builds every workflow that is shipped."""
