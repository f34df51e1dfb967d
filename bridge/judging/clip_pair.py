"""Text and image embeddings of one CLIP, from a CLIP and a CLIP_VISION as ComfyUI loads them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...safety_steering.errors import SafetySteeringError
from ..models.text_encoders import literal

if TYPE_CHECKING:
    from comfy.clip_vision import ClipVisionModel
    from comfy.sd import CLIP

TEXT_MODELS = ("clip_l", "clip_g", "clip_h")  # of a CLIP loader's text encoder; it may hold several
ADVICE = (
    "Connect the two halves of one CLIP: for example Load CLIP with clip_l.safetensors and Load CLIP Vision with "
    "clip_vision_vit_l. "
)


class ClipPair:
    """Embeddings of unit length in the shared space. A text is cut after 77 tokens.

    Raises:
        SafetySteeringError: on construction, if the two are not of one CLIP, or have no projections.
    """

    def __init__(self, clip: CLIP, clip_vision: ClipVisionModel) -> None:
        vision = getattr(getattr(clip_vision, "model", None), "visual_projection", None)
        if not isinstance(vision, torch.nn.Module):
            raise SafetySteeringError(
                f"This CLIP_VISION has no projection that a text could be compared with. {ADVICE}"
            )
        width = vision.weight.shape[0]
        encoder = getattr(clip, "cond_stage_model", None)
        models = {name: getattr(encoder, name, None) for name in TEXT_MODELS}
        projections = {
            name: model.transformer.text_projection.weight
            for name, model in models.items()
            if hasattr(getattr(model, "transformer", None), "text_projection")
        }
        fitting = [name for name, weight in projections.items() if weight.shape[0] == width]
        if not fitting:
            widths = ", ".join(f"{name} {weight.shape[0]}" for name, weight in projections.items()) or "no CLIP at all"
            raise SafetySteeringError(f"The CLIP_VISION is {width} wide, the text encoder {widths}. {ADVICE}")
        self._part = fitting[0]
        projection = projections[self._part].detach().float().cpu()
        if not bool(projection.isfinite().all()) or float(projection.std()) < 1e-6:
            raise SafetySteeringError(
                "This text encoder's file has no text projection (those of Stable Diffusion 1 checkpoints do not), so "
                f"its texts cannot be compared with pictures. {ADVICE}"
            )
        self._clip, self._vision = clip, clip_vision
        digest = hashlib.sha256(projection.numpy().tobytes())
        digest.update(vision.weight.detach().float().cpu().numpy().tobytes())
        self.name = f"CLIP {self._part} {digest.hexdigest()[:12]}"

    def texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Embeddings float32 (n, F) of n texts."""
        part = self._part.removeprefix("clip_")
        windows = [self._clip.tokenize(literal(text))[part][0] for text in texts]
        model: Any = getattr(self._clip.cond_stage_model, self._part)
        self._clip.load_model()
        model.reset_clip_options()
        model.set_clip_options({"projected_pooled": True, "execution_device": self._clip.patcher.load_device})
        try:
            with torch.inference_mode():
                rows = [model.encode([[token[0] for token in window]])[1] for window in windows]
        finally:
            model.reset_clip_options()
        return _unit(torch.cat(rows))

    def frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 (n, F) of frames uint8 (n, H, W, 3)."""
        images = torch.from_numpy(np.ascontiguousarray(frames)).float().div(255.0)
        with torch.inference_mode():
            return _unit(self._vision.encode_image(images)["image_embeds"])


def _unit(rows: torch.Tensor) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = torch.nn.functional.normalize(rows.float(), dim=1).cpu().numpy()
    return unit
