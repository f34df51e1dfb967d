"""What a node outputs as a picture, and what it shows below its widgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..bridge.comparison import to_image


def picture(chart: np.ndarray) -> torch.Tensor:
    """A drawn chart uint8 (H, W, 3) as IMAGE float32 (1, H, W, 3) in [0, 1]."""
    return to_image(chart[None])


def shown(node: type[io.ComfyNode], text: str, *images: torch.Tensor) -> dict[str, Any]:
    """A node's ui: a text, and IMAGEs saved among the temporary files."""
    saved = [entry for image in images for entry in ui.PreviewImage(image, cls=node).as_dict()["images"]]
    return {"images": saved, **ui.PreviewText(text).as_dict()}
