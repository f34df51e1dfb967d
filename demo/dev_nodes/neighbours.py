"""What widespread node packs do to a model beside ours, in a few lines each: swapped classes, caches, own samplers."""

from __future__ import annotations

import itertools
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.sample
import comfy.samplers
import torch
from comfy_api.latest import io

HIT_EVERY = 2  # each second call of a branch is answered by the cache


def _schema(name: str, description: str, *inputs: Any, outputs: Any = ()) -> io.Schema:
    return io.Schema(
        node_id=f"SafetySteeringDev_{name}",
        display_name=f"{name} (development)",
        category="Safety Steering/development",
        description=f"For tests only. {description}",
        inputs=[io.Model.Input("model"), *inputs],
        outputs=list(outputs or (io.Model.Output(),)),
    )


class SwapClass(io.ComfyNode):
    """As node packs that give a model a forward of their own: by an object patch, or for good."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "SwapClass",
            "Puts another class in place of the diffusion model's.",
            io.Boolean.Input("derived", default=True, optional=True),
            io.Boolean.Input("for_good", default=False, optional=True),
        )

    @classmethod
    def execute(cls, model: Any, derived: bool = True, for_good: bool = False) -> io.NodeOutput:
        patched = model.clone()
        former = patched.get_model_object("diffusion_model.__class__")
        swapped = type("Restyled", (former,), {}) if derived else _copied(former)
        if for_good:
            patched.model.diffusion_model.__class__ = swapped
        else:
            patched.add_object_patch("diffusion_model.__class__", swapped)
        return io.NodeOutput(patched)


def _copied(former: type) -> type:
    """A class with the same methods that is not derived from `former`."""
    methods = {name: value for base in reversed(former.__mro__[:-2]) for name, value in vars(base).items()}
    own = {name: value for name, value in methods.items() if name not in ("__dict__", "__weakref__", "__module__")}
    return type("Rewritten", (torch.nn.Module,), own)


class WrapModel(io.ComfyNode):
    """As node packs that wrap the diffusion model in a module of their own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "WrapModel",
            "Puts a module around the diffusion model.",
            io.Combo.Input("style", options=list(WRAPPERS), default="plain", optional=True),
            io.Boolean.Input("for_good", default=False, optional=True),
        )

    @classmethod
    def execute(cls, model: Any, style: str = "plain", for_good: bool = False) -> io.NodeOutput:
        patched = model.clone()
        wrapped = WRAPPERS[style](patched.get_model_object("diffusion_model"))
        if for_good:
            patched.model.diffusion_model = wrapped
        else:
            patched.add_object_patch("diffusion_model", wrapped)
        return io.NodeOutput(patched)


class Around(torch.nn.Module):
    """Has the model as its part."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


class WithParts(Around):
    """Has parts of its own beside the model, as adapters do."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__(inner)
        self.adapter = torch.nn.Linear(2, 2)
        self.own = comfy.ops.disable_weight_init.Linear(2, 2)


class Hidden(torch.nn.Module):
    """Keeps the model from torch, so that it is no part of the module."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.held = [inner]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.held[0](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["held"][0], name)


WRAPPERS = {
    "plain": Around,
    "with parts": WithParts,
    "hidden": Hidden,
    "twice": lambda inner: Around(WithParts(inner)),
}


class WrapBlocks(io.ComfyNode):
    """As node packs that replace the list of blocks by one module that runs them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("WrapBlocks", "Replaces the list of blocks by one module that runs them.", _list_input())

    @classmethod
    def execute(cls, model: Any, blocks: str) -> io.NodeOutput:
        patched = model.clone()
        own = patched.get_model_object(f"diffusion_model.{blocks}")
        patched.add_object_patch(f"diffusion_model.{blocks}", torch.nn.ModuleList([AllBlocks(own)]))
        return io.NodeOutput(patched)


def _list_input() -> io.String.Input:
    return io.String.Input("blocks", default="blocks")


class AllBlocks(torch.nn.Module):
    """A list of blocks (N, each x -> x) as one module. On a hit only the first runs, if any does."""

    def __init__(self, own: torch.nn.Module, residual: torch.Tensor | None = None, keep_first: bool = False) -> None:
        super().__init__()
        self.own, self.residual, self.keep_first, self.change = own, residual, keep_first, None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        blocks = list(self.own)
        if self.keep_first:
            x = blocks.pop(0)(x, *args, **kwargs)
        if self.residual is not None:
            return x + self.residual
        start = x.clone()
        for block in blocks:
            x = block(x, *args, **kwargs)
        self.change = x - start
        return x


class BlockCache(io.ComfyNode):
    """As TeaCache and MagCache (no block runs on a hit) or first-block caches (the first one does)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "BlockCache",
            "Answers each second call of a branch by the change that its blocks made in the call before.",
            _list_input(),
            io.Boolean.Input("first_block", default=False, optional=True),
        )

    @classmethod
    def execute(cls, model: Any, blocks: str, first_block: bool = False) -> io.NodeOutput:
        patched, seen = model.clone(), {}
        inner = patched.model_options.get("model_function_wrapper")

        def wrapper(apply_model: Any, call: dict[str, Any]) -> Any:
            diffusion_model = apply_model.__self__.diffusion_model
            branch = tuple(call["cond_or_uncond"])
            count, change = seen.get(branch, (0, None))
            hit = count % HIT_EVERY == HIT_EVERY - 1
            own = getattr(diffusion_model, blocks)
            cached = AllBlocks(own, change if hit else None, first_block)
            ahead = (lambda: inner(apply_model, call)) if inner else _plain(apply_model, call)
            with _Replaced(diffusion_model, blocks, torch.nn.ModuleList([cached]), inside=not first_block):
                result = ahead()
            seen[branch] = (count + 1, change if hit else cached.change)
            return result

        patched.set_model_unet_function_wrapper(wrapper)
        return io.NodeOutput(patched)


def _plain(apply_model: Any, call: dict[str, Any]) -> Any:
    return lambda: apply_model(call["input"], call["timestep"], **call["c"])


class _Replaced:
    """A list of blocks replaced for one model call, seen by everybody or only `inside` the model's forward."""

    def __init__(self, model: torch.nn.Module, name: str, replacement: torch.nn.Module, inside: bool) -> None:
        self.model, self.name, self.replacement, self.inside = model, name, replacement, inside
        self.own = getattr(model, name)

    def __enter__(self) -> None:
        if not self.inside:
            setattr(self.model, self.name, self.replacement)
            return
        former = self.model.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            setattr(self.model, self.name, self.replacement)
            try:
                return former(*args, **kwargs)
            finally:
                setattr(self.model, self.name, self.own)

        self.model.forward = forward

    def __exit__(self, *error: Any) -> None:
        self.model.__dict__.pop("forward", None)
        setattr(self.model, self.name, self.own)


class AroundCore(io.ComfyNode):
    """As node packs that load the MODEL themselves and sample in a loop of their own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "AroundCore",
            "Samples in a loop of its own that asks none of the model's wrappers.",
            io.Conditioning.Input("positive"),
            io.Latent.Input("latent_image"),
            io.Int.Input("seed", default=0, optional=True),
            io.Boolean.Input("with_wrappers", default=False, optional=True),
            outputs=(io.Latent.Output(),),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        latent_image: dict[str, Any],
        seed: int = 0,
        with_wrappers: bool = False,
    ) -> io.NodeOutput:
        comfy.model_management.load_models_gpu([model])
        start = latent_image["samples"]
        x = comfy.sample.prepare_noise(start, seed).to(model.load_device)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)
        text = positive[0][0].to(model.load_device)
        for now, then in itertools.pairwise(sigmas):
            if with_wrappers:
                options = {"wrappers": model.wrappers, "sigmas": now[None]}
                denoised = model.model.apply_model(x, now[None], c_crossattn=text, transformer_options=options)
                x = x + (x - denoised) / now * (then - now)
            else:
                steps = model.model.model_sampling.timestep(now)[None]
                x = x + model.model.diffusion_model(x, steps, text) * (then - now)
        return io.NodeOutput({"samples": x.to(start.device)})


class ModelAndGuider(io.ComfyNode):
    """As samplers that take a model beside a guider and sample with the guider's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "ModelAndGuider",
            "Samples with the guider's model; its own is asked for a schedule only.",
            io.Guider.Input("guider"),
            io.Latent.Input("latent_image"),
            io.Int.Input("seed", default=0, optional=True),
            outputs=(io.Latent.Output(),),
        )

    @classmethod
    def execute(cls, model: Any, guider: Any, latent_image: dict[str, Any], seed: int = 0) -> io.NodeOutput:
        start = latent_image["samples"]
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)
        noise = comfy.sample.prepare_noise(start, seed)
        samples = guider.sample(noise, start, comfy.samplers.sampler_object("euler"), sigmas, seed=seed)
        return io.NodeOutput({"samples": samples})


class Tiles(io.ComfyNode):
    """As tiled upscalers, which sample once a tile in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "Tiles",
            "Samples the same latent many times with different noise.",
            io.Conditioning.Input("positive"),
            io.Latent.Input("latent_image"),
            io.Int.Input("tiles", default=36),
            outputs=(io.Latent.Output(),),
        )

    @classmethod
    def execute(cls, model: Any, positive: Any, latent_image: dict[str, Any], tiles: int) -> io.NodeOutput:
        start = latent_image["samples"]
        for seed in range(tiles):
            noise = comfy.sample.prepare_noise(start, seed)
            how = (1, 1.0, "euler", "simple", positive, positive, start)
            samples = comfy.sample.sample(model, noise, *how, seed=seed, disable_pbar=True)
        return io.NodeOutput({"samples": samples})
