"""What nodes of other packs do that nobody means ill with: samplers of their own, savers with files on the side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image


def _schema(cls: type, inputs: list[Any], outputs: tuple[Any, ...] = (), **more: Any) -> io.Schema:
    return io.Schema(node_id=f"Hostile_{cls.__name__}", category="tests", inputs=inputs, outputs=list(outputs), **more)


def _write(image: torch.Tensor, path: Path) -> None:
    Image.fromarray((255 * image.clamp(0, 1).numpy()).astype(np.uint8)).save(path)


class ForeignSampler(io.ComfyNode):
    """Takes a model, and gives latents that it has not sampled with ComfyUI."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, [io.Model.Input("model"), io.Latent.Input("latent")], (io.Latent.Output(),))

    @classmethod
    def execute(cls, model: Any, latent: dict[str, Any]) -> io.NodeOutput:
        noise = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(0))
        return io.NodeOutput({"samples": noise})


class FullSampler(io.ComfyNode):
    """As KSampler (Efficient) does: samples, decodes if there is a VAE, and previews."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            io.Model.Input("model"),
            io.Conditioning.Input("positive"),
            io.Conditioning.Input("negative"),
            io.Latent.Input("latent"),
            io.Vae.Input("optional_vae", optional=True),
        ]
        outputs = (io.Model.Output(), io.Latent.Output(), io.Image.Output())
        return _schema(cls, inputs, outputs, is_output_node=True)

    @classmethod
    def execute(cls, model: Any, positive: Any, negative: Any, latent: Any, optional_vae: Any = None) -> io.NodeOutput:
        import nodes

        (sampled,) = nodes.common_ksampler(model, 1, 2, 1.0, "euler", "simple", positive, negative, latent)
        images = nodes.VAEDecode().decode(optional_vae, sampled)[0]
        return io.NodeOutput(model, sampled, images, ui=nodes.PreviewImage().save_images(images)["ui"])


class VideoCombine(io.ComfyNode):
    """As VHS_VideoCombine does: a picture and a film, of which it announces the film; a VAE it may decode with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            cls,
            [io.Image.Input("images"), io.Vae.Input("vae", optional=True)],
            (io.AnyType.Output(),),
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: torch.Tensor, vae: Any = None) -> io.NodeOutput:
        prefix, output = "combined", folder_paths.get_output_directory()
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output)
        still, film = (Path(folder) / f"{name}_{counter:05}{suffix}" for suffix in (".png", ".gif"))
        _write(images[0], still)
        _write(images[0], film)
        shown = {"filename": film.name, "subfolder": subfolder, "type": "output", "fullpath": str(film)}
        return io.NodeOutput((True, [str(still), str(film)]), ui={"gifs": [shown]})


class PastStaging(io.ComfyNode):
    """Writes where it should not: into the served folder by its path, over a file of others, or beside the point."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Image.Input("images"), io.String.Input("name"), io.Boolean.Input("announce", default=False)]
        return _schema(cls, inputs, is_output_node=True, not_idempotent=True)

    @classmethod
    def execute(cls, images: torch.Tensor, name: str, announce: bool) -> io.NodeOutput:
        import os

        path = Path(folder_paths.output_directory) / name
        _write(images[0], path)
        os.utime(path, (1, 1))
        shown = {"images": [{"filename": name, "subfolder": "", "type": "output"}]} if announce else {}
        return io.NodeOutput(ui=shown)


class PictureToText(io.ComfyNode):
    """Pixels as numbers in a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, [io.Image.Input("images"), io.Boolean.Input("caption")], (io.String.Output(),))

    @classmethod
    def execute(cls, images: torch.Tensor, caption: bool) -> io.NodeOutput:
        return io.NodeOutput("a fox in the snow" if caption else " ".join(map(str, images.flatten()[:900].tolist())))


class WeightsOnTheSide(io.ComfyNode):
    """Shows pictures, and saves the model's weights beside them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, [io.Image.Input("images"), io.Model.Input("model")], is_output_node=True)

    @classmethod
    def execute(cls, images: torch.Tensor, model: Any) -> io.NodeOutput:
        import comfy.utils

        path = Path(folder_paths.get_output_directory()) / "stolen.dat"
        comfy.utils.save_torch_file({"weight": torch.zeros(4)}, str(path))
        return io.NodeOutput()


class SlowSave(io.ComfyNode):
    """Writes a picture, and takes its time before it ends."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, [io.Image.Input("images"), io.Float.Input("seconds")], is_output_node=True)

    @classmethod
    def execute(cls, images: torch.Tensor, seconds: float) -> io.NodeOutput:
        _write(images[0], Path(folder_paths.get_output_directory()) / "slow.png")
        time.sleep(seconds)
        return io.NodeOutput(ui={"images": [{"filename": "slow.png", "subfolder": "", "type": "output"}]})


class FramesOverTheSocket(io.ComfyNode):
    """Sends frames as previews, outside of any sampler run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, [io.Image.Input("images")], is_output_node=True)

    @classmethod
    def execute(cls, images: torch.Tensor) -> io.NodeOutput:
        import comfy.utils

        picture = Image.fromarray((255 * images[0].clamp(0, 1).numpy()).astype(np.uint8))
        comfy.utils.ProgressBar(1).update_absolute(1, 1, ("PNG", picture, None))
        return io.NodeOutput()


class _OnModel(io.ComfyNode):
    """A node that gives a changed copy of a model."""

    inputs: tuple[Any, ...] = ()

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, [io.Model.Input("model"), *cls.inputs], (io.Model.Output(),))


class LoraStack(_OnModel):
    """LoRAs named deep in a value, as power loaders have them."""

    inputs = (io.AnyType.Input("stack"),)

    @classmethod
    def execute(cls, model: Any, stack: Any) -> io.NodeOutput:
        import nodes

        name = stack["lora"] if isinstance(stack, dict) else stack[0][0]
        return io.NodeOutput(nodes.LoraLoaderModelOnly().load_lora_model_only(model, name, 1.0)[0])


class LoraByPath(_OnModel):
    """A LoRA whose file the node finds by itself."""

    inputs = (io.String.Input("folder"), io.String.Input("name"))

    @classmethod
    def execute(cls, model: Any, folder: str, name: str) -> io.NodeOutput:
        import comfy.sd
        import comfy.utils

        weights = comfy.utils.load_torch_file(folder_paths.get_full_path(folder, f"{name}.safetensors"))
        return io.NodeOutput(comfy.sd.load_lora_for_models(model, None, weights, 0.3, 0.0)[0])


class ChangeModel(_OnModel):
    """Changes what all clones of a model share."""

    inputs = (io.String.Input("how"),)

    @classmethod
    def execute(cls, model: Any, how: str) -> io.NodeOutput:
        inner = model.model.diffusion_model
        if how == "module":
            inner.blocks[2] = Halved(inner.blocks[2])
        elif how == "forward":
            former = type(inner.blocks[0]).forward
            type(inner.blocks[0]).forward = lambda self, x, *args, **kwargs: 0.5 * former(self, x, *args, **kwargs)
        elif how == "class":
            inner.__class__ = type("Other", (type(inner),), {})
        else:
            patched = model.clone()
            patched.add_object_patch("diffusion_model.blocks.2", Halved(inner.blocks[2]))
            return io.NodeOutput(patched)
        return io.NodeOutput(model)


class Halved(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return 0.5 * self.inner(x, *args, **kwargs)


class ReplaceCore(_OnModel):
    """Replaces a function of core that the guardrail stands in front of."""

    inputs = (io.Int.Input("block"),)

    @classmethod
    def execute(cls, model: Any, block: int) -> io.NodeOutput:
        import comfy.sampler_helpers

        former = comfy.sampler_helpers.prepare_model_patcher.__wrapped__
        comfy.sampler_helpers.prepare_model_patcher = lambda *args: former(*args)
        return io.NodeOutput(model)


class SaveLater(io.ComfyNode):
    """Saves a picture as an output, after the other nodes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, [io.Image.Input("images")], is_output_node=True)

    @classmethod
    async def execute(cls, images: torch.Tensor) -> io.NodeOutput:
        import asyncio

        await asyncio.sleep(1.5)
        _write(images[0], Path(folder_paths.get_output_directory()) / "later.png")
        return io.NodeOutput(ui={"images": [{"filename": "later.png", "subfolder": "", "type": "output"}]})


CARELESS = [ForeignSampler, FullSampler, VideoCombine, PastStaging, PictureToText, WeightsOnTheSide, SlowSave]
CARELESS += [FramesOverTheSocket, LoraStack, LoraByPath, ChangeModel, ReplaceCore, SaveLater]
