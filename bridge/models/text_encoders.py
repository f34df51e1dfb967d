"""Text encoders: which family's prompt states one makes, told by its class, and texts that it reads as written.

The space is then that of the model map's row, the same that Apply Safety Steering asks for. Encoders whose states the
model reworks (LTX-2, Anima) are not here: their space lies behind the model, which must be connected.
"""

from __future__ import annotations

from typing import Any

from ...safety_steering.errors import MismatchError
from .families import FAMILIES
from .families.schema import Family

# class of clip.cond_stage_model -> family
ENCODERS = {
    "WanT5Model": "wan",
    "MochiT5XXL": "ltxv",  # LTXV's and Mochi's encoder are one
    "FluxClipModel": "flux",
    "SD1ClipModel": "sd1",
    "SD2ClipModel": "sd2",
    "SDXLClipModel": "sdxl",
    "SDXLRefinerClipModel": "sdxl",
    "SD3ClipModel": "sd3",
    "QwenImageTEModel": "qwen-image",
    "ZImageTEModel": "z-image",
    "LuminaModel": "lumina2",
    "HunyuanVideoClipModel": "hunyuan-video",
    "HunyuanImageTEModel": "hunyuan-video",
    "CogVideoXT5XXL": "cogvideox",
    "PixArtT5XXL": "chroma",
    "CosmosT5XXL": "cosmos1",
    "AuraT5Model": "auraflow",
    "Omnigen2Model": "omnigen2",
    "Kandinsky5TEModel": "kandinsky5",
}


def encoder_family(clip: Any) -> Family:
    """The model map's row for the states of this CLIP.

    Raises:
        MismatchError: the encoder is not known by name.
    """
    name = class_name(getattr(clip, "cond_stage_model", clip))
    if name not in ENCODERS:
        raise MismatchError(
            f"Safety Steering does not know which space the text encoder {name} is for. Connect the model as well: its "
            "space is read there."
        )
    return next(family for family in FAMILIES if family.name == ENCODERS[name])


def literal(text: str) -> str:
    """A text that core's tokenizers read as written, as language models do.

    In a prompt, brackets set weights of words, and `embedding:` loads a file.
    """
    return text.replace("(", "\\(").replace(")", "\\)").replace("embedding:", "embedding :")


def class_name(encoder: Any) -> str:
    """The class; of one that core makes inside a function, only to bind its dtype, the class behind it."""
    kind = type(encoder)
    return kind.__mro__[1].__name__ if "<locals>" in kind.__qualname__ else kind.__name__
