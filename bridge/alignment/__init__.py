"""Fitting an alignment on what is connected to the node."""
