"""What nodes of other packs tell the browser beside pictures in files."""

from __future__ import annotations

import base64
from typing import Any

import torch
from comfy_api.latest import io

from .packs import _schema


class ShowNumbers(io.ComfyNode):
    """Shows pixels as numbers. how: as a list, as the keys of an object, or in an object that names a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, [io.Image.Input("images"), io.String.Input("how")], is_output_node=True)

    @classmethod
    def execute(cls, images: torch.Tensor, how: str) -> io.NodeOutput:
        pixels = images.flatten()[:900].tolist()
        text = " ".join(map(str, pixels))
        shown: dict[str, Any] = {
            "list": {"values": pixels},
            "rows": {"values": [pixels[at : at + 30] for at in range(0, 900, 30)]},
            "keys": {"values": [{text: "pixels"}]},
            "file": {"images": [{"filename": "none.png", "subfolder": "", "type": "input", "data": text}]},
            "few": {"values": pixels[:3]},
        }[how]
        return io.NodeOutput(ui=shown)


class Tell(io.ComfyNode):
    """Sends a message of its own to the browser. how: with the picture in it, or with words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, [io.Image.Input("images"), io.String.Input("how")], is_output_node=True)

    @classmethod
    def execute(cls, images: torch.Tensor, how: str) -> io.NodeOutput:
        from server import PromptServer

        data = (255 * images[0].clamp(0, 1)).byte().numpy().tobytes()
        told: Any = {
            "base64": {"image": base64.b64encode(data).decode()},
            "address": {"image": "data:image/png;base64,AAAA"},
            "numbers": {"rows": [list(data[at : at + 64]) for at in range(0, 4096, 64)]},
            "words": {"text": "three faces found"},
        }[how]
        PromptServer.instance.send_sync("hostile.tell", told, PromptServer.instance.client_id)
        return io.NodeOutput()


class Pixels(io.ComfyNode):
    """Pixels as plain numbers: in one list, or one by one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs = (io.AnyType.Output(), io.Int.Output(is_output_list=True))
        return _schema(cls, [io.Image.Input("images")], outputs)

    @classmethod
    def execute(cls, images: torch.Tensor) -> io.NodeOutput:
        pixels = (255 * images.flatten()[:900]).int().tolist()
        return io.NodeOutput([pixels[at : at + 30] for at in range(0, 900, 30)], pixels)


TELLS = [ShowNumbers, Tell, Pixels]
