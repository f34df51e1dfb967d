"""Steering a sampler run."""
