"""What a node's value carries: pictures, words or neither, told by the value and not by the socket's name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

PICTURE_TYPES = frozenset({"IMAGE", "MASK", "LATENT", "VIDEO", "AUDIO", "VOXEL", "MESH", "SVG", "SPLAT"})
# Sockets of tensors and bundles that are no picture by themselves
OTHER_TYPES = frozenset(
    {"MODEL", "CLIP", "VAE", "CONDITIONING", "CLIP_VISION", "CONTROL_NET", "GUIDER", "SAMPLER", "SIGMAS", "NOISE"}
    | {"HOOKS", "HOOK_KEYFRAMES", "STYLE_MODEL", "UPSCALE_MODEL", "LATENT_UPSCALE_MODEL", "LORA_MODEL", "GLIGEN"}
    | {"STRING", "INT", "FLOAT", "BOOLEAN", "COMBO", "AUDIO_ENCODER", "MODEL_PATCH", "BACKGROUND_REMOVAL"}
)
DEEPEST = 4
LONGEST_TEXT = 4096
LONGEST_WORD = 64
HEAD = 65_536
LONGEST_TEXT_FILE = 8 * 1024**2
LONGEST_TOKEN = 2048  # letters without a space: base64 of a picture has more
# markup and text formats that draw: SVG, data addresses, PNM, XBM, XPM and PostScript
DRAWN = re.compile(r"\x00|<svg|data:image|\A\s*(P[1-6]\s|/\* XPM|%!PS|%PDF|#define \w+_width\s)", re.IGNORECASE)
MOST_DIGITS = 0.3  # share of a text's letters
MOST_NUMBERS = 256  # of a value that is no picture: as many as a histogram has
DEEPEST_PLAIN = 8
NUMBER = re.compile(r"\d+")


def is_picture(value: Any, kind: str = "") -> bool:
    """Whether a value is, or holds, a picture, a latent, a video, sound or a 3D shape.

    kind: its socket's type. Of unknown sockets, four-dimensional tensors with 1, 3 or 4 channels count as pictures.
    """
    if kind in OTHER_TYPES:
        return False
    return any(_is_one(item, kind) for item in leaves(value))


def _is_one(value: Any, kind: str) -> bool:
    if isinstance(value, Mapping):
        return bool(bundle_of(value))
    if isinstance(value, torch.Tensor | np.ndarray):
        return kind in PICTURE_TYPES or (value.ndim == 4 and value.shape[-1] in (1, 3, 4))
    return is_file_like(value) or type(value).__module__.startswith("PIL.") or kind in PICTURE_TYPES


def is_file_like(value: Any) -> bool:
    """Whether a value is what core hands on in the place of a file: a video, a 3D shape."""
    return hasattr(value, "get_components") or hasattr(value, "save_to")


def bundle_of(value: Any) -> str:
    """The key that holds the tensor of a latent (`samples`) or of sound (`waveform`); empty for any other value."""
    held = [
        key for key in ("waveform", "samples") if isinstance(value, Mapping) and hasattr(value.get(key), "is_nested")
    ]
    return held[0] if held else ""


def carries_pictures(value: Any, kind: str = "") -> bool:
    """As `is_picture`, and any array or many numbers but those of sockets that are known to be no pictures."""
    if kind in OTHER_TYPES:
        return False
    arrays = (item for item in leaves(value) if isinstance(item, torch.Tensor | np.ndarray))
    return is_picture(value, kind) or any(item.ndim > 1 for item in arrays) or many_numbers(value)


def many_numbers(value: Any, *, in_texts: bool = True) -> bool:
    """Whether a plain value has so many numbers that they may be a picture's. in_texts: count those within texts."""
    count = 0
    for leaf in leaves(value, DEEPEST_PLAIN):
        count += len(NUMBER.findall(leaf)) if in_texts and isinstance(leaf, str) else isinstance(leaf, int | float)
        if count > MOST_NUMBERS:
            return True
    return False


def leaves(value: Any, depth: int = DEEPEST) -> Iterator[Any]:
    """A value, and what lists and mappings in it hold."""
    yield value
    if depth:
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        for item in inner:
            yield from leaves(item, depth - 1)


def is_blank(value: Any) -> bool:
    """Whether a value is an empty latent: all of its samples have one value, and nothing is masked."""
    if not (isinstance(value, Mapping) and "samples" in value and "noise_mask" not in value):
        return False
    samples = value["samples"]
    parts = samples.unbind() if getattr(samples, "is_nested", False) else [samples]
    return all(isinstance(part, torch.Tensor) and bool((part == part.flatten()[:1]).all()) for part in parts)


def is_words(text: str) -> bool:
    """Whether a text reads as words: short, without long tokens, and not mostly digits. Numbers of a picture do not."""
    letters = [letter for letter in text if not letter.isspace()]
    digits = sum(letter.isdigit() for letter in letters)
    return (
        len(text) <= LONGEST_TEXT
        and all(len(word) <= LONGEST_WORD for word in text.split())
        and digits <= max(8, MOST_DIGITS * len(letters))
    )


def spells_picture(value: Any) -> bool:
    """Whether a text that was made from a picture spells it out: its numbers, or the way Python writes a tensor."""
    return isinstance(value, str) and ("tensor(" in value or "[[" in value or not is_words(value))


def same_object(value: Any, others: Sequence[Any]) -> bool:
    """Whether a value is one of these objects; plain values and texts are not told apart by identity."""
    plain = value is None or isinstance(value, str | int | float | bool)
    return not plain and any(value is other for other in others)


def is_text_file(path: Path) -> bool:
    """Whether a file is plain text: no markup, no numbers and no encoding of a picture."""
    try:
        text = path.read_text("utf-8") if path.stat().st_size <= LONGEST_TEXT_FILE else "\x00"
    except UnicodeDecodeError:
        return False
    return not (DRAWN.search(text) or any(len(token) > LONGEST_TOKEN for token in text.split()))


def is_weights_file(path: Path) -> bool:
    """Whether a file holds a model's weights, told by its first bytes: safetensors but a latent, pickles, GGUF."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if head[:4] == b"GGUF" or head[:2] == b"\x80\x02" or (head[:2] == b"PK" and b"data.pkl" in head):
        return True
    return head[8:9] == b"{" and b'"data_offsets"' in head and b'"latent_tensor"' not in head
