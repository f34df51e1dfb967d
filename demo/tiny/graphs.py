"""The text-to-video graphs that demo and tests run, as API prompts: stock nodes around the tiny checkpoints.

Each function adds loader, prompts, latent and sampler to a graph and returns the links a caller goes on from.
``steer`` maps (graph, model link) to the model link that is sampled; None leaves the model alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safety_steering_pack.commands.api_graph import Link, NodeRef, PromptGraph

from tiny.models import TINY_MODELS

Steer = Callable[[PromptGraph, Link], Link]
Rewire = Callable[[PromptGraph, list[Link]], list[Link]]
Guide = Callable[[PromptGraph, Link, list[Link], float], Link]

PROMPT = "a fox moving quickly through a winter forest"
NEGATIVE = "low quality, static, blurred"


@dataclass(frozen=True)
class Sampled:
    """Links into a graph: the model that was sampled and the latents that came out."""

    model: Link
    samples: Link


def _text(graph: PromptGraph, text: str, kind: str) -> Link:
    return graph.add("SafetySteeringDev_TextEncode", text=text, kind=kind, width=4096, length=0)[0]


def _model(graph: PromptGraph, kind: str, steer: Steer | None, weight_dtype: str) -> Link:
    file_name = TINY_MODELS[kind].file_name
    model = graph.add("UNETLoader", unet_name=file_name, weight_dtype=weight_dtype)[0]
    return steer(graph, model) if steer else model


def cfg_guider(graph: PromptGraph, model: Link, prompts: list[Link], cfg: float) -> Link:
    """The guider that does what KSampler does."""
    positive, negative = prompts
    return graph.add("CFGGuider", model=model, positive=positive, negative=negative, cfg=cfg)[0]


def _sample(
    graph: PromptGraph,
    model: Link,
    prompts: list[Link],
    latent: Link,
    *,
    guider: Guide | None = None,
    rewire: Rewire | None = None,
    **sampler: Any,
) -> Sampled:
    """KSampler, or SamplerCustomAdvanced under a ``guider``; ``rewire`` maps [positive, negative] to others."""
    settings = {"seed": 1, "steps": 4, "cfg": 6.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    chosen = settings | sampler
    prompts = rewire(graph, prompts) if rewire else prompts
    if guider is None:
        positive, negative = prompts
        sampled = graph.add("KSampler", chosen, model=model, positive=positive, negative=negative, latent_image=latent)
        return Sampled(model, sampled[0])
    schedule = {name: chosen[name] for name in ("scheduler", "steps", "denoise")}
    sampled = graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=chosen["seed"])[0],
        guider=guider(graph, model, prompts, chosen["cfg"]),
        sampler=graph.add("KSamplerSelect", sampler_name=chosen["sampler_name"])[0],
        sigmas=graph.add("BasicScheduler", schedule, model=model)[0],
        latent_image=latent,
    )
    return Sampled(model, sampled[0])


def _start_image(graph: PromptGraph, image: Link | None) -> Link:
    """The given IMAGE, or a plain one."""
    return image or graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0xC08040)[0]


def _vae(graph: PromptGraph, kind: str) -> Link:
    return graph.add("VAELoader", vae_name=TINY_MODELS[kind].file_name)[0]


def wan21_t2v(
    graph: PromptGraph,
    steer: Steer | None = None,
    *,
    prompt: str = PROMPT,
    negative: str = NEGATIVE,
    width: int = 64,
    height: int = 64,
    length: int = 9,
    batch_size: int = 1,
    weight_dtype: str = "default",
    **sampler: Any,
) -> Sampled:
    """Wan 2.1 text to video; latents (batch_size, 16, (length - 1) / 4 + 1, height / 8, width / 8)."""
    model = _model(graph, "wan21_t2v", steer, weight_dtype)
    latent = graph.add("EmptyHunyuanLatentVideo", width=width, height=height, length=length, batch_size=batch_size)
    prompts = [_text(graph, prompt, "wan"), _text(graph, negative, "wan")]
    return _sample(graph, model, prompts, latent[0], **sampler)


def ltxv_t2v(
    graph: PromptGraph,
    steer: Steer | None = None,
    *,
    prompt: str = PROMPT,
    negative: str = NEGATIVE,
    width: int = 128,
    height: int = 128,
    length: int = 17,
    batch_size: int = 1,
    weight_dtype: str = "default",
    **sampler: Any,
) -> Sampled:
    """LTX-Video text to video; latents (batch_size, 128, (length - 1) / 8 + 1, height / 32, width / 32)."""
    model = _model(graph, "ltxv", steer, weight_dtype)
    latent = graph.add("EmptyLTXVLatentVideo", width=width, height=height, length=length, batch_size=batch_size)
    framed = graph.add(
        "LTXVConditioning",
        positive=_text(graph, prompt, "ltxv"),
        negative=_text(graph, negative, "ltxv"),
        frame_rate=25.0,
    )
    return _sample(graph, model, [framed[0], framed[1]], latent[0], **{"cfg": 3.0, **sampler})


def flux_t2i(
    graph: PromptGraph,
    steer: Steer | None = None,
    *,
    prompt: str = PROMPT,
    negative: str = "",
    width: int = 64,
    height: int = 64,
    batch_size: int = 1,
    weight_dtype: str = "default",
    **sampler: Any,
) -> Sampled:
    """Flux text to image at its usual cfg 1; latents (batch_size, 16, height / 8, width / 8)."""
    model = _model(graph, "flux", steer, weight_dtype)
    latent = graph.add("EmptySD3LatentImage", width=width, height=height, batch_size=batch_size)
    prompts = [_text(graph, prompt, "flux"), _text(graph, negative, "flux")]
    return _sample(graph, model, prompts, latent[0], **{"cfg": 1.0, **sampler})


def wan21_i2v(
    graph: PromptGraph,
    steer: Steer | None = None,
    *,
    image: Link | None = None,
    vae: Link | None = None,
    prompt: str = PROMPT,
    negative: str = NEGATIVE,
    width: int = 64,
    height: int = 64,
    length: int = 9,
    batch_size: int = 1,
    weight_dtype: str = "default",
    **sampler: Any,
) -> Sampled:
    """Wan 2.1 image to video from an IMAGE link, with CLIP vision states from the development node."""
    model = _model(graph, "wan21_i2v", steer, weight_dtype)
    image = _start_image(graph, image)
    start = graph.add(
        "WanImageToVideo",
        positive=_text(graph, prompt, "wan"),
        negative=_text(graph, negative, "wan"),
        vae=vae or _vae(graph, "wan_vae"),
        width=width,
        height=height,
        length=length,
        batch_size=batch_size,
        start_image=image,
        clip_vision_output=graph.add("SafetySteeringDev_ClipVision", image=image)[0],
    )
    return _sample(graph, model, [start[0], start[1]], start[2], **sampler)


def wan22_ti2v(
    graph: PromptGraph,
    steer: Steer | None = None,
    *,
    prompt: str = PROMPT,
    negative: str = NEGATIVE,
    width: int = 128,
    height: int = 128,
    length: int = 9,
    batch_size: int = 1,
    start_frame: bool = False,
    weight_dtype: str = "default",
    **sampler: Any,
) -> Sampled:
    """Wan 2.2 5B; latents (1, 48, (length - 1) / 4 + 1, height / 16, width / 16), repeated ``batch_size`` times.

    Its own VAE does not shrink: the latent node asks for one and, without an image, does not use it. ``start_frame``
    uses random latents instead of an encoded image, with the mask of that node.
    """
    model = _model(graph, "wan22_ti2v", steer, weight_dtype)
    vae = _vae(graph, "wan_vae")
    sizes = {"width": width, "height": height, "length": length, "batch_size": 1}
    latent = graph.add("Wan22ImageToVideoLatent", sizes, vae=vae)[0]
    if start_frame:
        latent = graph.add("SafetySteeringDev_StartFrame", latent=latent)[0]
    if batch_size > 1:  # the latent node forgets its batch size when it has no image
        latent = graph.add("RepeatLatentBatch", samples=latent, amount=batch_size)[0]
    prompts = [_text(graph, prompt, "wan"), _text(graph, negative, "wan")]
    return _sample(graph, model, prompts, latent, **sampler)


def wan22_i2v(graph: PromptGraph, steer: Steer | None = None, **options: Any) -> Sampled:
    """Wan 2.2 5B with a start frame: its tokens have denoise mask 0 and run at timestep 0."""
    return wan22_ti2v(graph, steer, start_frame=True, **options)


def ltxv_i2v(
    graph: PromptGraph,
    steer: Steer | None = None,
    *,
    image: Link | None = None,
    guide_frame: int | None = None,
    prompt: str = PROMPT,
    negative: str = NEGATIVE,
    width: int = 128,
    height: int = 128,
    length: int = 17,
    batch_size: int = 1,
    weight_dtype: str = "default",
    **sampler: Any,
) -> Sampled:
    """LTX-Video from an IMAGE: as the first latent frame, or as a guide frame for frame ``guide_frame``."""
    model = _model(graph, "ltxv", steer, weight_dtype)
    framed = graph.add(
        "LTXVConditioning",
        positive=_text(graph, prompt, "ltxv"),
        negative=_text(graph, negative, "ltxv"),
        frame_rate=25.0,
    )
    shared = {"positive": framed[0], "negative": framed[1], "vae": _vae(graph, "ltxv_vae"), "strength": 1.0}
    shared["image"] = _start_image(graph, image)
    sizes = {"width": width, "height": height, "length": length, "batch_size": batch_size}
    if guide_frame is None:
        guided = graph.add("LTXVImgToVideo", shared | sizes)
        latent = guided[2]
    else:
        empty = graph.add("EmptyLTXVLatentVideo", sizes, batch_size=1)
        guided = graph.add("LTXVAddGuide", shared, latent=empty[0], frame_idx=guide_frame)
        # the guide node takes one video; a batch is made of its result
        latent = (
            graph.add("RepeatLatentBatch", samples=guided[2], amount=batch_size)[0] if batch_size > 1 else guided[2]
        )
    return _sample(graph, model, [guided[0], guided[1]], latent, **{"cfg": 3.0, **sampler})


def ltxv_guide(graph: PromptGraph, steer: Steer | None = None, **options: Any) -> Sampled:
    """LTX-Video with one guide frame in mid-video."""
    return ltxv_i2v(graph, steer, guide_frame=8, **options)


def save_latent(graph: PromptGraph, samples: Link, name: str) -> NodeRef:
    """Save latents bit-exactly (core's SaveLatent writes the tensor as it is); read back with ``load_latent``."""
    return graph.add("SaveLatent", samples=samples, filename_prefix=f"latents/{name}")
