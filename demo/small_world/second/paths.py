"""Where the second world's files lie: all outside the repository."""

from __future__ import annotations

from pathlib import Path

from ..scenes.art import cache_dir


def work_dir() -> Path:
    """The folder of training states, samples and weights."""
    return cache_dir() / "second_world"


def generator_file() -> Path:
    """The trained generator, as stock `UNETLoader` reads it."""
    return work_dir() / "small_hunyuan.safetensors"


def vae_file() -> Path:
    """Its VAE, as stock `VAELoader` reads it."""
    return work_dir() / "small_ltx_vae.safetensors"
