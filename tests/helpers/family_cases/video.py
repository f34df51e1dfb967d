"""Cases of the video families: three latent frames, of 4 x 4 tokens where nothing else is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tiny.models import LTXV_SIZES, TINY_MODELS, WAN_SIZES

from family_cases.case import Build, FamilyCase, Tokens, from_config, from_loader, on_meta
from family_cases.image import UNET

FRAME = 16
VIDEO = range(3 * FRAME)
Extras = Callable[[torch.Generator], dict[str, Any]]


def wan(class_name: str = "WanModel", module: str = "model", **sizes: Any) -> Build:
    """The stock loader's Wan model of a class."""
    chosen = {**WAN_SIZES, **sizes}
    config = {name: chosen[name] for name in WAN_SIZES}
    return from_loader(on_meta(f"comfy.ldm.wan.{module}", class_name, **chosen), {"transformer": config})


def with_latents(**shapes: Any) -> Extras:
    """Conditioning keys with random tensors; a list of one shape is a list of one tensor."""

    def extras(generator: torch.Generator) -> dict[str, Any]:
        def make(shape: Any) -> Any:
            return [make(shape[0])] if isinstance(shape, list) else torch.randn(shape, generator=generator)

        return {key: make(shape) for key, shape in shapes.items()}

    return extras


def with_vision(**shapes: Any) -> Extras:
    """As `with_latents`, with CLIP vision states."""

    def extras(generator: torch.Generator) -> dict[str, Any]:
        from comfy.clip_vision import Output

        vision = Output()
        vision.penultimate_hidden_states = torch.randn(1, 257, 1280, generator=generator)
        vision.last_hidden_state = torch.randn(1, 5, 1152, generator=generator)
        return {"clip_vision_output": vision, **with_latents(**shapes)(generator)}

    return extras


def with_mask(*others: Extras, **values: Any) -> Extras:
    """An integer mask of eight tokens, the last two padding, and other keys."""

    def extras(generator: torch.Generator) -> dict[str, Any]:
        made = {"attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]]), **values}
        for other in others:
            made |= other(generator)
        return made

    return extras


def first_frame_kept(frames: int = 3, side: int = 8) -> Callable[[], torch.Tensor]:
    """A noise mask that keeps the first latent frame."""

    def mask() -> torch.Tensor:
        kept = torch.ones(1, 1, frames, side, side)
        kept[:, :, 0] = 0
        return kept

    return mask


LATENT = (1, 16, 3, 8, 8)
ONE_FRAME = (1, 16, 1, 8, 8)
TEXT = (8, 4096)
BLOCKS = {"blocks.image": Tokens(48, VIDEO)}


def wan_case(name: str, build: Build, **case: Any) -> FamilyCase:
    """A Wan model out of the stock loader."""
    settings = {"latent": LATENT, "text": TEXT, "tokens": BLOCKS, "loader": True, "family": name, **case}
    return FamilyCase(name=name, build=build, **settings)


WAN_CASES = (
    wan_case("wan", wan()),
    wan_case(
        "wan-i2v",
        from_loader(TINY_MODELS["wan21_i2v"].shapes, {"transformer": WAN_SIZES}),
        family="wan",
        extras=with_vision(concat_latent_image=LATENT),
    ),
    wan_case("wan-2.2-ti2v", wan(in_dim=48, out_dim=48), family="wan", latent=(1, 48, 3, 8, 8)),
    wan_case(
        "wan-2.2-ti2v-start-frame",
        wan(in_dim=48, out_dim=48),
        family="wan",
        latent=(1, 48, 3, 8, 8),
        noise_mask=first_frame_kept(),
        tokens={"blocks.image": Tokens(48, VIDEO[FRAME:])},
    ),
    wan_case(
        "wan-reference-prefix",
        wan(in_dim_ref_conv=16),
        family="wan",
        extras=with_latents(reference_latents=[ONE_FRAME]),
        tokens={"blocks.image": Tokens(64, range(16, 64))},
    ),
    wan_case(
        "wan-context-suffix",
        wan(),
        family="wan",
        extras=with_latents(context_latents=[ONE_FRAME]),
        tokens={"blocks.image": Tokens(64, VIDEO)},
    ),
    wan_case(
        "wan-appended-frames",
        wan(),
        family="wan",
        extras=with_latents(time_dim_concat=ONE_FRAME),
        tokens={"blocks.image": Tokens(64, VIDEO)},
    ),
    wan_case(
        "wan-vace",
        wan("VaceWanModel", vace_layers=2, vace_in_dim=96),
        tokens=BLOCKS | {"vace_blocks.image": Tokens(48, VIDEO)},
    ),
    wan_case(
        "wan-camera",
        wan("CameraWanModel", in_dim=32),
        extras=with_vision(camera_conditions=(1, 24, 3, 64, 64)),
    ),
    wan_case(
        "wan-s2v",
        wan("WanModel_S2V"),
        extras=with_latents(audio_embed=(1, 25, 1024, 12), reference_latents=[ONE_FRAME]),
        tokens={"blocks.image": Tokens(64, VIDEO)},
    ),
    wan_case(
        "wan-humo",
        wan("HumoWanModel"),
        extras=with_latents(audio_embed=(1, 3, 8, 5, 1280), reference_latents=[ONE_FRAME]),
        tokens={"blocks.image": Tokens(64, VIDEO)},
    ),
    wan_case(
        "wan-scail",
        wan("SCAILWanModel", in_dim=20),
        extras=with_vision(reference_latents=[ONE_FRAME], pose_video_latent=(1, 16, 3, 4, 4)),
        tokens={"blocks.image": Tokens(16 + 48 + 12, range(16, 64))},
    ),
    wan_case(
        "wan-scail2",
        wan("SCAIL2WanModel", in_dim=20),
        extras=with_vision(
            reference_latents=[ONE_FRAME],
            pose_video_latent=(1, 16, 3, 4, 4),
            ref_mask_28ch=(1, 4, 28, 8, 8),
            driving_mask_28ch=(1, 3, 28, 4, 4),
        ),
        tokens={"blocks.image": Tokens(16 + 48 + 12, range(16, 64))},
    ),
    wan_case(
        "wan-animate",
        wan("AnimateWanModel", "model_animate", in_dim=36, num_layers=5),
        extras=with_vision(pose_video_latent=(1, 16, 2, 8, 8)),
    ),
    wan_case(
        "wan-ar",
        from_config("WAN21_CausalAR_T2V", image_model="wan2.1", model_type="t2v", **WAN_SIZES),
        loader=False,
    ),
    wan_case(
        "wan-dancer",
        wan("WanDancerModel", "model_wandancer", in_dim=36),
        extras=with_vision(audio_embed=(1, 12, 35)),
    ),
)

LTX2_SIZES: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 8,
    "cross_attention_dim": 32,
    "audio_cross_attention_dim": 16,
    "caption_channels": 64,
    "num_layers": 3,
    "connector_num_attention_heads": 2,
    "connector_attention_head_dim": 16,
    "connector_num_layers": 1,
}
LTX2_SOUND = (1, 8, 5, 16)


def ltx2_case(name: str, **case: Any) -> FamilyCase:
    """LTX-2 with sound, prompt states past the connector: video and sound side by side in their channels."""
    settings = {
        "latent": ((1, 128, 3, 4, 4), LTX2_SOUND),
        "text": (8, 128),
        "words": 8,
        "channels": (0, 64),
        "tokens": {
            "transformer_blocks.image": Tokens(48, VIDEO),
            "transformer_blocks.audio": Tokens(5, range(5), item=1),
        },
        "loader": True,
        "family": "ltx2",
        "build": from_loader(
            on_meta("comfy.ldm.lightricks.av_model", "LTXAVModel", **LTX2_SIZES), {"transformer": LTX2_SIZES}
        ),
        **case,
    }
    return FamilyCase(name=name, **settings)


LTX23_SIZES = LTX2_SIZES | {
    "caption_proj_before_connector": True,
    "caption_projection_first_linear": False,
    "cross_attention_adaln": True,
    "audio_connector_num_attention_heads": 1,
}


def start_frame_and_sound() -> Any:
    """Noise masks that keep the first frame of the video and the first two of the sound."""
    from comfy.nested_tensor import NestedTensor

    sound = torch.ones(1, 1, 5, 16)
    sound[:, :, :2] = 0
    return NestedTensor([first_frame_kept(side=4)(), sound])


LTX_CASES = (
    FamilyCase(
        name="ltxv",
        family="ltxv",
        build=from_loader(TINY_MODELS["ltxv"].shapes, {"transformer": LTXV_SIZES}),
        loader=True,
        latent=(1, 128, 3, 4, 4),
        text=TEXT,
        extras=with_mask(),
        tokens={"transformer_blocks.image": Tokens(48, VIDEO)},
    ),
    FamilyCase(
        name="ltxv-start-frame",
        family="ltxv",
        build=from_loader(TINY_MODELS["ltxv"].shapes, {"transformer": LTXV_SIZES}),
        loader=True,
        latent=(1, 128, 3, 4, 4),
        text=TEXT,
        extras=with_mask(),
        noise_mask=first_frame_kept(side=4),
        tokens={"transformer_blocks.image": Tokens(48, VIDEO[FRAME:])},
    ),
    ltx2_case("ltx2"),
    ltx2_case(
        "ltx2.3",
        family="ltx2.3",
        build=from_loader(
            on_meta("comfy.ldm.lightricks.av_model", "LTXAVModel", **LTX23_SIZES), {"transformer": LTX23_SIZES}
        ),
        text=(8, 48),
        channels=(0, 32),
    ),
    ltx2_case(
        "ltx2-start",
        noise_mask=start_frame_and_sound,
        tokens={
            "transformer_blocks.image": Tokens(48, VIDEO[FRAME:]),
            "transformer_blocks.audio": Tokens(5, range(2, 5), item=1),
        },
    ),
    ltx2_case(
        "ltx2-reference-sound",
        extras=lambda generator: {"ref_audio": {"tokens": torch.randn(1, 3, 128, generator=generator)}},
        tokens={
            "transformer_blocks.image": Tokens(48, VIDEO),
            "transformer_blocks.audio": Tokens(8, range(3, 8), item=1),
        },
    ),
)

HUNYUAN_SIZES: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 128,
    "mlp_ratio": 4.0,
    "num_heads": 1,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56],
    "theta": 256,
    "patch_size": [1, 2, 2],
    "qkv_bias": True,
    "guidance_embed": True,
    "byt5": False,
    "meanflow": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}
HUNYUAN = on_meta("comfy.ldm.hunyuan_video.model", "HunyuanVideo", **HUNYUAN_SIZES)
POOLED = with_latents(pooled_output=(1, 768))


def joint(image: int, moved: range, text: int, words: range) -> dict[str, Tokens]:
    """Tokens of double blocks that return (image, text) and single blocks with the text in front."""
    return {
        "double_blocks.image": Tokens(image, moved),
        "double_blocks.text": Tokens(text, words, item=1),
        "single_blocks.image": Tokens(text + image, range(text + moved.start, text + moved.stop)),
        "single_blocks.text": Tokens(text + image, words),
    }


# core takes one prompt a call where there is a token mask or a reference, so these run at cfg 1
HUNYUAN_CASES = (
    FamilyCase(
        name="hunyuan-video",
        family="hunyuan-video",
        build=from_loader(HUNYUAN),
        loader=True,
        latent=LATENT,
        text=TEXT,
        extras=with_mask(POOLED),
        cfg=1.0,
        tokens=joint(48, VIDEO, 8, range(6)),
    ),
    FamilyCase(
        name="hunyuan-video-start-frame",
        family="hunyuan-video",
        build=from_loader(HUNYUAN),
        loader=True,
        latent=LATENT,
        text=TEXT,
        extras=with_mask(POOLED, guiding_frame_index=0),
        noise_mask=first_frame_kept(),
        cfg=1.0,
        tokens=joint(48, VIDEO[FRAME:], 8, range(6)),
    ),
    FamilyCase(
        name="hunyuan-video-reference",
        family="hunyuan-video",
        build=from_loader(HUNYUAN),
        loader=True,
        latent=LATENT,
        text=TEXT,
        extras=with_mask(POOLED, with_latents(ref_latent=ONE_FRAME)),
        cfg=1.0,
        tokens=joint(64, range(16, 64), 8, range(6)),
    ),
    FamilyCase(
        name="hunyuan-video-1.5",
        family="hunyuan-video",
        build=from_config(
            "HunyuanVideo15",
            image_model="hunyuan_video",
            **{
                **HUNYUAN_SIZES,
                "in_channels": 65,
                "out_channels": 32,
                "vec_in_dim": None,
                "context_in_dim": 3584,
                "depth_single_blocks": 0,
                "patch_size": [1, 1, 1],
                "guidance_embed": False,
                "byt5": True,
                "use_cond_type_embedding": True,
                "vision_in_dim": 1152,
                "meanflow_sum": True,
            },
        ),
        latent=(1, 32, 3, 4, 4),
        text=(8, 3584),
        extras=lambda g: {"pooled_output": None, **with_vision(conditioning_byt5small=(1, 3, 1472))(g)},
        # five image states and three glyph states stand before the prompt
        tokens={
            "double_blocks.image": Tokens(48, VIDEO),
            "double_blocks.text": Tokens(16, range(8, 14), item=1),
        },
    ),
)

MOCHI_SIZES: dict[str, Any] = {
    "depth": 3,
    "patch_size": 2,
    "num_heads": 2,
    "hidden_size_x": 48,
    "hidden_size_y": 32,
    "mlp_ratio_x": 256.0,  # the class asserts the real model's inner width
    "mlp_ratio_y": 4.0,
    "learn_sigma": False,
    "in_channels": 12,
    "qk_norm": True,
    "qkv_bias": False,
    "out_bias": True,
    "attn_drop": 0.0,
    "patch_embed_bias": True,
    "posenc_preserve_area": True,
    "timestep_mlp_bias": True,
    "attend_to_padding": False,
    "timestep_scale": 1000.0,
    "use_t5": True,
    "t5_feat_dim": 64,
    "t5_token_length": 256,
    "rope_theta": 10000.0,
}
COSMOS_SIZES: dict[str, Any] = {
    "max_img_h": 16,
    "max_img_w": 16,
    "max_frames": 8,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 64,
    "num_blocks": 3,
    "num_heads": 1,
    "concat_padding_mask": True,
    "crossattn_emb_channels": 48,
    "pos_emb_cls": "rope3d",
    "pos_emb_interpolation": "crop",
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    "extra_per_block_abs_pos_emb": True,
}
COSMOS1_SIZES = COSMOS_SIZES | {
    "pos_emb_learnable": False,
    "block_config": "FA-CA-MLP",
    "block_x_format": "THWBD",
    "affline_emb_norm": True,
    "extra_per_block_abs_pos_emb_type": "learnable",
}
PREDICT2_SIZES = COSMOS_SIZES | {"pos_emb_learnable": True, "extra_per_block_abs_pos_emb": False}
KANDINSKY_SIZES: dict[str, Any] = {
    "in_text_dim": 64,
    "time_dim": 32,
    "model_dim": 64,
    "ff_dim": 64,
    "num_text_blocks": 2,
    "num_visual_blocks": 3,
}


def cosmos_case(name: str, family: str, config: str, dims: str, sizes: dict[str, Any], **case: Any) -> FamilyCase:
    """A Cosmos model; an image-to-video one is shown the first frame."""
    shown = sizes["in_channels"] == 17
    moved = VIDEO[FRAME:] if shown else VIDEO
    return FamilyCase(
        name=name,
        family=family,
        build=from_config(config, **sizes),
        latent=LATENT,
        text=(8, 48),
        noise_mask=first_frame_kept() if shown else None,
        tokens={"blocks.image": Tokens(48, moved, dims=dims)},
        reads={"blocks.image": Tokens(48, moved, dims=dims if family == "cosmos1" else "")},
        **case,
    )


BTHWD, THWBD = "b t h w d -> b (t h w) d", "t h w b d -> b (t h w) d"
OTHER_CASES = (
    FamilyCase(
        name="cogvideox",
        family="cogvideox",
        build=from_loader(
            on_meta(
                "comfy.ldm.cogvideo.model",
                "CogVideoXTransformer3DModel",
                num_attention_heads=1,
                time_embed_dim=32,
                num_layers=3,
                use_rotary_positional_embeddings=True,
            )
        ),
        loader=True,
        latent=LATENT,
        text=TEXT,
        sampler={"denoise": 0.2},  # core hands the model unscaled latents: at full noise a step is lost in rounding
        tokens={"blocks.image": Tokens(48, VIDEO), "blocks.text": Tokens(8, range(6), item=1)},
        reads={"blocks.image": Tokens(56, range(8, 56))},  # the text in front
    ),
    FamilyCase(
        name="mochi",
        family="mochi",
        build=from_config("GenmoMochi", **MOCHI_SIZES),
        latent=(1, 12, 3, 8, 8),
        text=(8, 64),
        extras=with_mask(),
        tokens={"blocks.image": Tokens(48, VIDEO), "blocks.text": Tokens(8, range(6), item=1)},
    ),
    cosmos_case("cosmos1", "cosmos1", "CosmosT2V", THWBD, COSMOS1_SIZES),
    cosmos_case("cosmos1-i2v", "cosmos1", "CosmosI2V", THWBD, COSMOS1_SIZES | {"in_channels": 17}),
    cosmos_case("cosmos-predict2", "cosmos-predict2", "CosmosT2IPredict2", BTHWD, PREDICT2_SIZES),
    cosmos_case(
        "cosmos-predict2-i2v", "cosmos-predict2", "CosmosI2VPredict2", BTHWD, PREDICT2_SIZES | {"in_channels": 17}
    ),
    FamilyCase(
        name="anima",
        family="anima",
        build=from_config("Anima", **PREDICT2_SIZES | {"crossattn_emb_channels": 1024}),
        latent=(1, 16, 1, 8, 8),
        text=(8, 1024),
        tokens={"blocks.image": Tokens(16, range(16), dims=BTHWD)},
    ),
    FamilyCase(
        name="kandinsky5",
        family="kandinsky5",
        build=from_config("Kandinsky5", **KANDINSKY_SIZES),
        latent=LATENT,
        text=(8, 64),
        extras=with_mask(POOLED),
        tokens={
            "text_transformer_blocks.text": Tokens(8, range(6)),
            "visual_transformer_blocks.image": Tokens(48, VIDEO),
        },
    ),
    FamilyCase(
        name="kandinsky5-start-frame",
        family="kandinsky5",
        build=from_config("Kandinsky5", **KANDINSKY_SIZES),
        latent=LATENT,
        text=(8, 64),
        extras=with_mask(POOLED, with_latents(time_dim_replace=ONE_FRAME)),
        tokens={
            "text_transformer_blocks.text": Tokens(8, range(6)),
            "visual_transformer_blocks.image": Tokens(48, VIDEO[FRAME:]),
        },
    ),
)

SVD_SIZES = UNET | {
    "in_channels": 8,
    "num_classes": "sequential",
    "context_dim": 1024,
    "adm_in_channels": 768,
    "use_linear_in_transformer": True,
    "use_temporal_attention": True,
    "use_temporal_resblock": True,
    "video_kernel_size": [3, 1, 1],
    "use_spatial_context": True,
    "merge_strategy": "learned_with_images",
    "merge_factor": 0.0,
    "extra_ff_mix_layer": True,
}
FRAMES = Tokens(None, dims="b d h w -> b (h w) d")
SVD_CASES = (
    FamilyCase(
        name="svd",
        family="svd",
        build=from_config("SVD_img2vid", **SVD_SIZES),
        latent=(3, 4, 8, 8),  # one sample a frame
        text=(1, 1024),
        words=1,
        tokens={"input_blocks.image": FRAMES, "middle_block.image": FRAMES, "output_blocks.image": FRAMES},
    ),
)

VIDEO_CASES = WAN_CASES + LTX_CASES + HUNYUAN_CASES + OTHER_CASES + SVD_CASES
