"""What a hostile or careless node pack could do to a sampler run. Only the guarded test servers load it."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any, ClassVar

import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import torch
from comfy_api.latest import ComfyExtension, io
from comfy_execution.graph_utils import GraphBuilder

from .packs import CARELESS
from .prompts import PROMPTS
from .strays import STRAYS
from .tells import TELLS

sys.path.append(str(Path(__file__).parent))  # as an operator's own judge is importable


class _Patch(io.ComfyNode):
    """A node that gives a changed copy of a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"Hostile_{cls.__name__}",
            category="tests",
            inputs=[io.Model.Input("model"), io.Int.Input("block", default=2)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, block: int) -> io.NodeOutput:
        patched = model.clone()
        cls.change(patched, block)
        return io.NodeOutput(patched)


class ObjectPatch(_Patch):
    """Puts a module of its own in a block's place, which undoes whatever was done before it."""

    @classmethod
    def change(cls, patched: Any, block: int) -> None:
        inner = patched.get_model_object(f"diffusion_model.blocks.{block}")
        patched.add_object_patch(f"diffusion_model.blocks.{block}", Doubled(inner))


class Doubled(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * self.inner(*args, **kwargs)


class WrapperRemover(_Patch):
    """Takes every wrapper out of each model call."""

    @classmethod
    def change(cls, patched: Any, block: int) -> None:
        def without(apply_model: Any, call: dict[str, Any]) -> Any:
            options = {**call["c"]["transformer_options"], "wrappers": {}}
            return apply_model(call["input"], call["timestep"], **{**call["c"], "transformer_options": options})

        patched.set_model_unet_function_wrapper(without)


class Later(_Patch):
    """Puts a wrapper behind all others, once the run has been prepared."""

    @classmethod
    def change(cls, patched: Any, block: int) -> None:
        def behind(apply_model: Any, call: dict[str, Any]) -> Any:
            options = call["c"]["transformer_options"]
            options["wrappers"]["apply_model"]["zz"] = [lambda executor, *args, **kwargs: executor(*args, **kwargs)]
            return apply_model(call["input"], call["timestep"], **call["c"])

        patched.set_model_unet_function_wrapper(behind)


class _SamplerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id=f"Hostile_{cls.__name__}", category="tests", inputs=[], outputs=[io.Sampler.Output()])


class SamplerOfTheirOwn(_SamplerNode):
    """A sampler class that core does not have; it calls the model as samplers do."""

    @classmethod
    def execute(cls) -> io.NodeOutput:
        def two_thirds(model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, **_: Any) -> Any:
            for now, then in itertools.pairwise(sigmas):
                denoised = model(x, now * x.new_ones([x.shape[0]]), **(extra_args or {}))
                x = x + (x - denoised) / now * (then - now)
            return x

        return io.NodeOutput(comfy.samplers.KSAMPLER(two_thirds))


class SamplerAroundCore(_SamplerNode):
    """A sampler that calls the model itself, without what core passes on."""

    @classmethod
    def execute(cls) -> io.NodeOutput:
        def around(model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, **_: Any) -> Any:
            context = torch.randn(1, 8, 4096)
            return model.inner_model.inner_model.apply_model(x, sigmas[:1], c_crossattn=context)

        return io.NodeOutput(comfy.samplers.KSAMPLER(around))


class SamplerWithoutModel(_SamplerNode):
    """A sampler that never calls the model."""

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.KSAMPLER(lambda model, x, sigmas, **_: x))


class SwallowError(io.ComfyNode):
    """Samples by itself and hides that it was refused."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hostile_SwallowError",
            category="tests",
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent"),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, model: Any, positive: Any, negative: Any, latent: dict[str, Any]) -> io.NodeOutput:
        import nodes

        try:
            return io.NodeOutput(
                *nodes.common_ksampler(model, 1, 2, 1.0, "euler", "simple", positive, negative, latent)
            )
        except Exception:
            return io.NodeOutput(latent)


class Loop(io.ComfyNode):
    """Becomes a chain of samplers at run time, as loop nodes do; `save` hides a node that is refused among them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hostile_Loop",
            category="tests",
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent"),
                io.Int.Input("times", default=2),
                io.Boolean.Input("save", default=False),
            ],
            outputs=[io.Latent.Output()],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, model: Any, positive: Any, negative: Any, latent: Any, times: int, save: bool) -> io.NodeOutput:
        graph = GraphBuilder()
        settings = {"steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        prompts = {"positive": positive, "negative": negative}
        current = latent
        for seed in range(times):
            sampled = graph.node("KSampler", model=model, latent_image=current, seed=seed, **prompts, **settings)
            current = sampled.out(0)
        if save:
            graph.node("ModelSave", model=model, filename_prefix="stolen")
        return io.NodeOutput(current, expand=graph.finalize())


class SmallUNet(io.ComfyNode):
    """Nothing hostile: Stable Diffusion 1.5's UNet at small size, which no stock loader takes."""

    SIZES: ClassVar[dict[str, Any]] = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [1, 1],
        "transformer_depth_output": [1, 1, 1, 1],
        "transformer_depth_middle": 1,
        "use_spatial_transformer": True,
        "legacy": False,
        "num_heads": 8,
        "num_head_channels": -1,
        "context_dim": 768,
    }

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Hostile_SmallUNet", category="tests", inputs=[], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        config = comfy.supported_models.SD15(dict(cls.SIZES))
        config.unet_config.update(cls.SIZES)
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "", device=torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        for parameter in model.diffusion_model.parameters():
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
        cpu = torch.device("cpu")
        return io.NodeOutput(comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu))


class ApiNode(io.ComfyNode):
    """A node that would get its picture from another service."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hostile_ApiNode", category="tests", inputs=[], outputs=[io.Image.Output()], is_api_node=True
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(torch.zeros(1, 8, 8, 3))


class EndWorker(io.ComfyNode):
    """Raises what core does not catch (`raising`), or breaks what core's worker does after a job."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Hostile_EndWorker", category="tests", inputs=[io.Boolean.Input("raising")], is_output_node=True
        )

    @classmethod
    def execute(cls, raising: bool) -> io.NodeOutput:
        from server import PromptServer

        if raising:
            raise KeyboardInterrupt("a node")
        PromptServer.instance.prompt_queue.task_done = None
        return io.NodeOutput()


class HostileNodes(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        patches = [ObjectPatch, WrapperRemover, Later]
        samplers = [SamplerOfTheirOwn, SamplerAroundCore, SamplerWithoutModel]
        return [
            *patches,
            *samplers,
            SwallowError,
            Loop,
            ApiNode,
            SmallUNet,
            EndWorker,
            *CARELESS,
            *STRAYS,
            *PROMPTS,
            *TELLS,
        ]


async def comfy_entrypoint() -> ComfyExtension:
    return HostileNodes()
