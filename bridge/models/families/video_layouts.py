"""Token layouts of the video families, and the parts of their conditioning arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..tokens import Layout, LayoutFunction, PartFunction, TokenRange, denoised, editable_states, patches


def wan(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """Wan: [reference image] video [reference, motion, appended frames, context latents].

    Start-frame tokens have denoise mask 0. Only a model with `ref_conv` puts its reference in front.
    """
    frames, *sizes = patches(x, model.patch_size)
    frame = math.prod(sizes)
    reference = arguments.get("reference_latent")
    start = 0
    if model.ref_conv is not None and reference is not None:
        start = math.prod(patches(reference, model.patch_size[1:]))
    mask = denoised(arguments.get("denoise_mask"), model.patch_size)
    return {"image": TokenRange(start, frames * frame, mask, frame=frame)}


def wan_ar(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """Causal Wan: the frames of one block, at an unknown position. Start frames have calls of their own, first."""
    options = arguments["transformer_options"] or {}
    shown, state = options.get("ar_config", {}).get("initial_latent"), options.get("ar_state")
    if shown is not None and state is not None and state["start_frame"] < shown.shape[2]:
        return {"image": TokenRange(0, 0)}
    return {"image": replace(wan(model, x, arguments)["image"], frame=None)}


def wan_scail(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """SCAIL: reference frames, video, pose."""
    reference = arguments.get("reference_latent")
    start = 0 if reference is None else math.prod(patches(reference, model.patch_size))
    frames, *sizes = patches(x, model.patch_size)
    return {"image": TokenRange(start, frames * math.prod(sizes), frame=math.prod(sizes))}


def ltxv(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """LTXV: video, then guide frames; tokens with a negative denoise mask are taken out of the sequence."""
    return {"image": _ltx_video(x.shape[2:], arguments)}


def ltx2(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """LTX-2: video as LTXV's; [reference sound] sound. Both are packed into one latent where there is sound."""
    shapes = arguments.get("latent_shapes") or ()
    if len(shapes) < 2:
        return {"image": _ltx_video(x.shape[2:], arguments), "audio": TokenRange(0, 0)}
    reference, mask = arguments.get("ref_audio"), arguments.get("audio_denoise_mask")
    start = 0 if reference is None else reference["tokens"].shape[1]
    if mask is not None:  # (B, channels, frames, frequencies): a token is a frame
        mask = mask[:, 0, :, :1] > 0
    return {"image": _ltx_video(shapes[0][2:], arguments), "audio": TokenRange(start, shapes[1][2], mask)}


def _ltx_video(size: Sequence[int], arguments: Mapping[str, Any]) -> TokenRange:
    count = math.prod(size)
    mask = arguments.get("denoise_mask")
    guides = arguments.get("keyframe_idxs")
    if guides is None or guides.shape[2] == 0:
        return TokenRange(0, count, denoised(mask, (1, 1, 1)), frame=math.prod(size[1:]))
    assert mask is not None  # the model itself needs it to place guides
    tokens = mask[:, :1].flatten(1)
    video = torch.arange(count, device=tokens.device) < count - guides.shape[2]
    editable = (tokens > 0) & video
    kept = tokens[0] >= 0
    return TokenRange(0, int(kept.sum()), editable[:, kept, None])


def _ltx2_split(model: Any, states: torch.Tensor) -> int:
    """Where the video's channels of the states end and the sound's begin."""
    return int(model.inner_dim if model.caption_proj_before_connector else model.caption_channels)


def ltx2_video(model: Any, states: torch.Tensor) -> tuple[None, slice]:
    """LTX-2's states for the video."""
    return None, slice(0, _ltx2_split(model, states))


def ltx2_audio(model: Any, states: torch.Tensor) -> tuple[None, slice]:
    """LTX-2's states for the sound."""
    return None, slice(_ltx2_split(model, states), None)


def hunyuan_video(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """HunyuanVideo: [reference] video; [image states] text [glyphs], in 1.5 [image states] [glyphs] text.

    With `guiding_frame_index` the first frame is the start frame and runs at timestep 0.
    """
    sizes = patches(x, tuple(model.patch_size))
    reference, glyphs, vision = (arguments.get(name) for name in ("ref_latent", "txt_byt5", "clip_fea"))
    start = 0 if reference is None else math.prod(patches(reference, tuple(model.patch_size)))
    count = math.prod(sizes)
    if arguments.get("guiding_frame_index") is not None:
        fixed = math.prod(sizes[1:])
        start, count = start + fixed, count - fixed
    states, mask = arguments["c_crossattn"], arguments.get("attention_mask")
    before = vision.shape[1] if vision is not None else 0
    extra = glyphs.shape[1] if glyphs is not None and model.byt5_in is not None else 0
    text = TokenRange(
        before + (extra if model.cond_type_embedding is not None else 0),
        states.shape[1],
        editable_states(states.to(x.device), None if mask is None else mask.to(x.device)),
        length=before + extra + states.shape[1],
    )
    frame = math.prod(sizes[1:]) if len(sizes) == 3 else None  # of an image model there are two
    return {"image": TokenRange(start, count, frame=frame), "text": text}


def cogvideox(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """CogVideoX: video, padded to whole patches."""
    patch = (model.patch_size_t or 1, model.patch_size, model.patch_size)
    frames, *sizes = patches(x, patch)
    return {"image": TokenRange(0, frames * math.prod(sizes), frame=math.prod(sizes))}


def mochi(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """Mochi: video."""
    frames, *sizes = patches(x, (1, model.patch_size, model.patch_size))
    return {"image": TokenRange(0, frames * math.prod(sizes), frame=math.prod(sizes))}


def cosmos(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """Cosmos: video; an image-to-video model has a mask channel that is 1 at start frames."""
    patch = (model.patch_temporal, model.patch_spatial, model.patch_spatial)
    shown = arguments.get("c_concat")
    mask = None if shown is None else denoised(1 - shown[:, :1], patch)
    frames, *sizes = patches(x, patch)
    return {"image": TokenRange(0, frames * math.prod(sizes), mask, frame=math.prod(sizes))}


def kandinsky5(model: Any, x: torch.Tensor, arguments: Mapping[str, Any]) -> Layout:
    """Kandinsky 5: video, whose first frames are the start frames if such are given."""
    patch = tuple(model.patch_size)
    if x.ndim == 4:
        return {"image": TokenRange(0, math.prod(patches(x, patch[1:])))}
    frames, *sizes = patches(x, patch)
    shown = arguments.get("time_dim_replace")
    fixed = 0 if shown is None else patches(shown, patch)[0]
    frame = math.prod(sizes)
    return {"image": TokenRange(fixed * frame, (frames - fixed) * frame, frame=frame)}


VIDEO_LAYOUTS: dict[str, LayoutFunction] = {
    layout.__name__: layout
    for layout in (wan, wan_ar, wan_scail, ltxv, ltx2, hunyuan_video, cogvideox, mochi, cosmos, kandinsky5)
}
VIDEO_PARTS: dict[str, PartFunction] = {"ltx2_video": ltx2_video, "ltx2_audio": ltx2_audio}
