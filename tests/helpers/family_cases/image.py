"""Cases of the image families: the classes and sizes, and the tokens that may move, written down by hand."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from tiny.models import TINY_MODELS

from family_cases.case import FamilyCase, Tokens, from_config, from_loader

GRID = range(16)  # the image's tokens in all cases with a 4 x 4 grid
FLUX = {
    "hidden_size": 128,
    "num_heads": 1,
    "mlp_ratio": 1.0,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "txt_ids_dims": [],
}
FLUX2 = {
    **FLUX,
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "axes_dim": [32, 32, 32, 32],
    "vec_in_dim": None,
    "context_in_dim": 48,
    "qkv_bias": False,
    "ops_bias": False,
    "guidance_embed": True,
    "global_modulation": True,
    "mlp_silu_act": True,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
    "txt_ids_dims": [3],
}
CHROMA = {
    **FLUX,
    "in_channels": 64,
    "out_channels": 64,
    "context_in_dim": 48,
    "in_dim": 64,
    "out_dim": 128,
    "hidden_dim": 32,
    "n_layers": 1,
}
RADIANCE = {
    **CHROMA,
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": 16,
    "nerf_hidden_size": 8,
    "nerf_mlp_ratio": 2,
    "nerf_depth": 1,
    "nerf_max_freqs": 2,
    "nerf_tile_size": 0,
    "nerf_final_head_type": "conv",
    "nerf_embedder_dtype": torch.float32,
    "use_x0": False,
    "use_sequential_txt_ids": False,
}
UNET = {
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
    "num_heads": -1,
    "num_head_channels": 16,
}
NEXT_DIT = {
    "patch_size": 2,
    "in_channels": 16,
    "dim": 32,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "axes_dims": [4, 6, 6],
    "axes_lens": [64, 64, 64],
    "cap_feat_dim": 24,
    "qk_norm": True,
    "multiple_of": 16,
    "ffn_dim_multiplier": 1.0,
}
Z_IMAGE = {
    **NEXT_DIT,
    "dim": 256,  # its modulation is 256 wide, so it gets no smaller
    "n_heads": 4,
    "n_kv_heads": 4,
    "axes_dims": [16, 24, 24],
    "z_image_modulation": True,
    "pad_tokens_multiple": 32,
    "time_scale": 1000.0,
}
QWEN = {"num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2, "axes_dims_rope": (4, 6, 6)}
HIDREAM = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "caption_channels": [24, 24],
    "text_emb_dim": 16,
    "num_routed_experts": 2,
    "num_activated_experts": 1,
    "axes_dims_rope": (4, 6, 6),
    "max_resolution": (16, 16),
    "llama_layers": [0, 1, 0, 1, 1],
}
OMNIGEN = {
    "hidden_size": 48,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "num_attention_heads": 2,
    "num_kv_heads": 1,
    "multiple_of": 16,
    "axes_dim_rope": (8, 8, 8),
    "axes_lens": (64, 64, 64),
}


def _meta(path: str, **sizes: Any) -> Callable[[], dict[str, torch.Tensor]]:
    """The state dict, on meta, of a class "module:Class" with small sizes."""

    def build() -> dict[str, torch.Tensor]:
        import comfy.ops

        module, name = path.split(":")
        made = getattr(import_module(module), name)(**sizes, device="meta", operations=comfy.ops.disable_weight_init)
        return dict(made.state_dict())

    return build


def _extras(*given: Callable[[torch.Generator], dict[str, Any]]) -> Callable[[torch.Generator], dict[str, Any]]:
    """All that `given` make, in one dict."""
    return lambda generator: {key: value for make in given for key, value in make(generator).items()}


def _random(**shapes: tuple[int, ...]) -> Callable[[torch.Generator], dict[str, Any]]:
    """Keys with random tensors of these shapes."""
    return lambda generator: {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _references(*shapes: tuple[int, ...], method: str = "") -> Callable[[torch.Generator], dict[str, Any]]:
    """Reference latents of these shapes, and how the model is to place them."""
    chosen = {"reference_latents_method": method} if method else {}
    return lambda generator: {"reference_latents": [torch.randn(s, generator=generator) for s in shapes], **chosen}


def _mask(rows: int, kept: int, name: str = "attention_mask") -> Callable[[torch.Generator], dict[str, Any]]:
    """A mask of the text's rows that keeps the first ones."""
    return lambda generator: {name: (torch.arange(rows) < kept).long()[None]}


def _token_ids(generator: torch.Generator) -> dict[str, Any]:
    """HiDream-O1: five words and the token that stands for the noise level."""
    words = torch.randint(0, 1000, (1, 5), generator=generator)
    return {"text_input_ids": torch.cat([words, torch.tensor([[151673]])], dim=1)}


def _without_cache(patcher: Any) -> Any:
    patcher.model.diffusion_model.clear_kv_cache()
    return patcher


def _sd3_states(states: torch.Tensor) -> torch.Tensor:
    """Four rows of CLIP, filled up with zeros; then those of T5."""
    states[:, :4, 2048:] = 0
    return states


def _double(image: int, text: int, moved: range = GRID, text_moved: range | None = None) -> dict[str, Tokens]:
    """The streams of blocks that return (image, text)."""
    return {"image": Tokens(image, moved), "text": Tokens(text, text_moved or range(text), item=1)}


def _double_text_first(
    image: int, text: int, moved: range = GRID, text_moved: range | None = None
) -> dict[str, Tokens]:
    """The streams of blocks that return (text, image)."""
    return {"image": Tokens(image, moved, item=1), "text": Tokens(text, text_moved or range(text))}


def _joined(total: int, image: range, text: range) -> dict[str, Tokens]:
    """The streams of blocks that return one tensor."""
    return {"image": Tokens(total, image), "text": Tokens(total, text)}


def _lists(**lists: dict[str, Tokens]) -> dict[str, Tokens]:
    return {f"{name}.{stream}": tokens for name, streams in lists.items() for stream, tokens in streams.items()}


def _image(total: int, moved: range) -> dict[str, Tokens]:
    return {"image": Tokens(total, moved)}


def _text(total: int, moved: range) -> dict[str, Tokens]:
    return {"text": Tokens(total, moved)}


_CHANNELS_FIRST = {"image": Tokens(None, dims="b d h w -> b (h w) d")}
UNET_TOKENS = _lists(input_blocks=_CHANNELS_FIRST, middle_block=_CHANNELS_FIRST, output_blocks=_CHANNELS_FIRST)

TIER_ONE = (
    FamilyCase(
        name="flux",
        family="flux",
        build=from_loader(TINY_MODELS["flux"].shapes),
        loader=True,
        latent=(1, 16, 7, 8),  # an odd side: the last patches are filled up
        text=(8, 4096),
        words=8,
        extras=_random(pooled_output=(1, 768)),
        tokens=_lists(double_blocks=_double(16, 8), single_blocks=_joined(24, range(8, 24), range(8))),
    ),
    FamilyCase(
        name="flux-kontext",
        family="flux",
        build=from_loader(TINY_MODELS["flux"].shapes),
        loader=True,
        latent=(1, 16, 8, 8),
        text=(8, 4096),
        words=8,
        extras=_extras(_random(pooled_output=(1, 768)), _references((1, 16, 8, 8), (1, 16, 3, 8))),
        tokens=_lists(double_blocks=_double(40, 8), single_blocks=_joined(48, range(8, 24), range(8))),
    ),
    FamilyCase(
        name="flux2",
        family="flux2",
        build=from_config("Flux2", **FLUX2),
        latent=(1, 128, 4, 4),
        text=(8, 48),
        conditioning=range(504, 510),  # core fills the text up to 512 rows, in front
        extras=_references((1, 128, 4, 4)),
        tokens=_lists(
            double_blocks=_double(32, 512, text_moved=range(504, 510)),
            single_blocks=_joined(544, range(512, 528), range(504, 510)),
        ),
    ),
    FamilyCase(
        name="chroma",
        family="chroma",
        build=from_config("Chroma", **CHROMA),
        latent=(1, 16, 8, 8),
        text=(8, 48),
        tokens=_lists(
            double_blocks=_double(16, 8, text_moved=range(6)), single_blocks=_joined(24, range(8, 24), range(6))
        ),
    ),
    FamilyCase(
        name="sd3",
        family="sd3",
        build=from_loader(
            _meta(
                "comfy.ldm.modules.diffusionmodules.mmdit:OpenAISignatureMMDITWrapper",
                input_size=None,
                in_channels=16,
                depth=2,
                adm_in_channels=32,
                context_embedder_config={
                    "target": "torch.nn.Linear",
                    "params": {"in_features": 4096, "out_features": 128},
                },
                num_patches=64,
                pos_embed_max_size=8,
                qk_norm="rms",
            )
        ),
        loader=True,
        latent=(1, 16, 8, 8),
        text=(12, 4096),
        words=10,
        states=_sd3_states,
        conditioning=range(4, 10),  # T5's rows
        extras=_random(pooled_output=(1, 32)),
        tokens=_lists(joint_blocks=_double_text_first(16, 12, text_moved=range(10))),
    ),
    FamilyCase(
        name="sd1",
        family="sd1",
        build=from_config("SD15", **{**UNET, "context_dim": 768, "num_heads": 8, "num_head_channels": -1}),
        latent=(1, 4, 8, 8),
        text=(8, 768),
        words=8,
        tokens=UNET_TOKENS,
        reads={"transformer_blocks.image": Tokens(None)},
    ),
    FamilyCase(
        name="sd2",
        family="sd2",
        build=from_config("SD20", **UNET, context_dim=1024, use_linear_in_transformer=True),
        latent=(1, 4, 8, 8),
        text=(8, 1024),
        words=8,
        tokens=UNET_TOKENS,
        reads={"transformer_blocks.image": Tokens(None)},
    ),
    FamilyCase(
        name="sdxl",
        family="sdxl",
        build=from_config(
            "SDXL",
            **{**UNET, "transformer_depth": [0, 2], "transformer_depth_output": [0, 0, 2, 2]},
            context_dim=2048,
            adm_in_channels=2816,
            num_classes="sequential",
            use_linear_in_transformer=True,
        ),
        latent=(1, 4, 8, 8),
        text=(8, 2048),
        words=8,
        extras=_random(pooled_output=(1, 1280)),
        tokens=UNET_TOKENS,
        reads={"transformer_blocks.image": Tokens(None)},
    ),
    FamilyCase(
        name="qwen-image",
        family="qwen-image",
        build=from_config("QwenImage", **QWEN, in_channels=64, out_channels=16, joint_attention_dim=24),
        latent=(1, 16, 1, 7, 8),
        text=(8, 24),
        tokens=_lists(transformer_blocks=_double_text_first(16, 8, text_moved=range(6))),
    ),
    FamilyCase(
        name="qwen-image-edit",
        family="qwen-image",
        build=from_config("QwenImage", **QWEN, in_channels=64, out_channels=16, joint_attention_dim=24),
        latent=(1, 16, 1, 8, 8),
        text=(8, 24),
        words=8,
        conditioning=range(5),
        extras=_extras(_mask(8, 5), _references((1, 16, 1, 8, 8), (1, 16, 1, 4, 8), method="index_timestep_zero")),
        tokens=_lists(transformer_blocks=_double_text_first(40, 8, text_moved=range(5))),
    ),
    FamilyCase(
        name="lumina2",
        family="lumina2",
        build=from_config("Lumina2", **NEXT_DIT),
        latent=(1, 16, 7, 8),
        text=(8, 24),
        words=8,
        conditioning=range(6),
        extras=_mask(8, 6),
        tokens=_lists(
            context_refiner=_text(8, range(6)),
            noise_refiner=_image(16, GRID),
            layers=_joined(24, range(8, 24), range(6)),
        ),
    ),
    FamilyCase(
        name="z-image",
        family="z-image",
        build=from_config("ZImage", **Z_IMAGE),
        latent=(1, 16, 8, 8),
        text=(8, 24),
        tokens=_lists(
            context_refiner=_text(32, range(6)),
            noise_refiner=_image(32, GRID),
            layers=_joined(64, range(32, 48), range(6)),
        ),
    ),
    FamilyCase(
        name="z-image-references",
        family="z-image",
        build=from_config("ZImage", **Z_IMAGE),
        latent=(1, 16, 8, 8),
        text=(8, 24),
        extras=_references((1, 16, 8, 8)),
        tokens=_lists(
            context_refiner=_text(64, range(32, 38)),
            noise_refiner=_image(64, range(32, 48)),
            layers=_joined(128, range(96, 112), range(32, 38)),
        ),
    ),
    FamilyCase(
        name="z-image-pixel",
        family="z-image-pixel",
        build=from_config(
            "ZImagePixelSpace",
            **{**Z_IMAGE, "in_channels": 3, "patch_size": 8},
            decoder_hidden_size=16,
            decoder_num_res_blocks=1,
            decoder_max_freqs=2,
        ),
        latent=(1, 3, 32, 32),
        text=(8, 24),
        tokens=_lists(
            context_refiner=_text(32, range(6)),
            noise_refiner=_image(32, GRID),
            layers=_joined(64, range(32, 48), range(6)),
        ),
    ),
)

PIXELDIT = {
    "hidden_size": 32,
    "num_groups": 2,
    "pixel_hidden_size": 4,
    "pixel_attn_hidden_size": 16,
    "pixel_num_groups": 2,
    "patch_depth": 2,
    "pixel_depth": 1,
    "txt_embed_dim": 24,
}

TIER_TWO = (
    FamilyCase(
        name="pixeldit",
        family="pixeldit",
        build=from_config("PixelDiTT2I", **PIXELDIT),
        latent=(1, 3, 62, 64),  # pixels: 4 x 4 patches, the last row begun
        text=(8, 24),
        tokens=_lists(patch_blocks=_double(16, 8, text_moved=range(6))),
    ),
    FamilyCase(
        name="chroma-radiance",
        family="chroma-radiance",
        build=from_config("ChromaRadiance", **RADIANCE),
        latent=(1, 3, 64, 64),
        text=(8, 48),
        tokens=_lists(
            double_blocks=_double(16, 8, text_moved=range(6)), single_blocks=_joined(24, range(8, 24), range(6))
        ),
    ),
    FamilyCase(
        name="mage-flow",
        family="mage-flow",
        build=from_config("MageFlow", **QWEN, in_channels=128, out_channels=128, joint_attention_dim=24),
        latent=(1, 128, 4, 4),
        text=(8, 24),
        words=8,
        conditioning=range(5),
        extras=_extras(_mask(8, 5), _references((1, 128, 4, 4))),
        tokens=_lists(transformer_blocks=_double_text_first(32, 8, text_moved=range(5))),
    ),
    FamilyCase(
        name="lens",
        family="lens",
        build=from_config("Lens", **QWEN, in_channels=128, out_channels=32, enc_hidden_dim=6),
        latent=(1, 128, 4, 4),
        text=(8, 24),
        words=8,
        conditioning=range(5),
        extras=_mask(8, 5),
        tokens=_lists(transformer_blocks=_double_text_first(16, 8, text_moved=range(5))),
    ),
    FamilyCase(
        name="hidream",
        family="hidream",
        build=from_config("HiDream", **HIDREAM),
        latent=(1, 16, 8, 8),
        text=(6, 24),
        extras=_random(pooled_output=(1, 16), conditioning_llama3=(1, 2, 5, 24)),
        tokens=_lists(
            double_stream_blocks=_double(16, 16, text_moved=range(11)),  # the last five are gone after the block
            single_stream_blocks=_joined(32, GRID, range(16, 27)),
        ),
    ),
    FamilyCase(
        name="hidream-edit",
        family="hidream",
        build=from_config("HiDream", **HIDREAM),
        latent=(1, 16, 4, 8),
        text=(6, 24),
        extras=_random(pooled_output=(1, 16), conditioning_llama3=(1, 2, 5, 24), concat_latent_image=(1, 16, 4, 8)),
        tokens=_lists(  # two rows of four, each followed by four of the image to edit
            double_stream_blocks=_double(16, 16, [0, 1, 2, 3, 8, 9, 10, 11], range(11)),
            single_stream_blocks=_joined(32, [0, 1, 2, 3, 8, 9, 10, 11], range(16, 27)),
        ),
    ),
    FamilyCase(
        name="hidream-o1",
        family="hidream-o1",
        build=from_config(
            "HiDreamO1",
            text_config_overrides={
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 8,
                "rope_dims": [2, 1, 1],
            },
            vision_config_overrides={
                "hidden_size": 16,
                "num_heads": 2,
                "intermediate_size": 32,
                "depth": 1,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": (),
            },
        ),
        latent=(1, 3, 128, 128),
        text=(1, 4),
        extras=_token_ids,
        prepare=_without_cache,
        tokens=_lists(layers=_image(22, range(6, 22))),
    ),
    FamilyCase(
        name="auraflow",
        family="auraflow",
        build=from_config(
            "AuraFlow",
            in_channels=4,
            out_channels=4,
            dim=32,
            n_layers=4,
            n_double_layers=2,
            n_heads=2,
            global_conddim=32,
            cond_seq_dim=24,
            max_seq=64,
        ),
        latent=(1, 4, 8, 8),
        text=(8, 24),
        tokens=_lists(
            double_layers=_double_text_first(16, 16, text_moved=range(8, 14)),
            single_layers=_joined(32, range(16, 32), range(8, 14)),
        ),
    ),
    FamilyCase(
        name="omnigen2",
        family="omnigen2",
        build=from_config("Omnigen2", **OMNIGEN, text_feat_dim=24),
        latent=(1, 16, 7, 8),
        text=(6, 24),
        extras=_extras(_mask(6, 6), _references((1, 16, 8, 8))),
        tokens=_lists(
            context_refiner=_text(6, range(6)),
            noise_refiner=_image(16, GRID),
            layers=_joined(38, range(22, 38), range(6)),
        ),
    ),
    FamilyCase(
        name="boogu",
        family="boogu",
        build=from_config("Boogu", **OMNIGEN, num_double_stream_layers=2, instruction_feat_dim=24),
        latent=(1, 16, 8, 8),
        text=(6, 24),
        extras=_extras(_mask(6, 6), _references((1, 16, 8, 8))),
        tokens=_lists(
            context_refiner=_text(6, range(6)),
            noise_refiner=_image(16, GRID),
            double_stream_layers=_double(32, 6, range(16, 32)),
            single_stream_layers=_joined(38, range(22, 38), range(6)),
        ),
        reads=_lists(double_stream_layers=_image(38, range(22, 38))),
    ),
    FamilyCase(
        name="ernie",
        family="ernie",
        build=from_config(
            "ErnieImage",
            hidden_size=32,
            num_attention_heads=2,
            num_layers=2,
            ffn_hidden_size=32,
            text_in_dim=24,
            rope_axes_dim=(4, 6, 6),
        ),
        latent=(1, 128, 4, 4),
        text=(8, 24),
        tokens=_lists(layers=_joined(24, GRID, range(16, 22))),
    ),
    FamilyCase(
        name="pixart",
        family="pixart",
        build=from_config(
            "PixArtSigma", hidden_size=48, depth=2, num_heads=2, caption_channels=24, micro_condition=False
        ),
        latent=(1, 4, 40, 40),  # smaller ones make core divide by zero
        text=(6, 24),
        tokens=_lists(blocks=_image(400, range(400))),
    ),
    FamilyCase(
        name="hunyuan-dit",
        family="hunyuan-dit",
        build=from_config(
            "HunyuanDiT",
            hidden_size=32,
            depth=4,
            num_heads=2,
            mlp_ratio=2.0,
            text_states_dim=24,
            text_states_dim_t5=16,
            text_len=8,
            text_len_t5=8,
        ),
        latent=(1, 4, 8, 8),
        text=(8, 24),
        words=8,
        conditioning=range(5),
        extras=_extras(_mask(8, 5), _random(conditioning_mt5xl=(1, 8, 16)), _mask(8, 6, name="attention_mask_mt5xl")),
        tokens=_lists(blocks=_image(16, GRID)),
    ),
    FamilyCase(
        name="krea2",
        family="krea2",
        build=from_loader(
            _meta(
                "comfy.ldm.krea2.model:SingleStreamDiT",
                features=128,
                heads=1,
                kvheads=1,
                layers=2,
                txtdim=160,
                txtlayers=2,
            )
        ),
        loader=True,
        latent=(1, 16, 1, 8, 8),
        text=(8, 320),
        words=8,
        extras=_references((1, 16, 1, 8, 8), method="index"),
        tokens=_lists(blocks=_joined(40, range(8, 24), range(8))),
    ),
    FamilyCase(
        name="ideogram4",
        family="ideogram4",
        build=from_config(
            "Ideogram4",
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=16,
            intermediate_size=32,
            adaln_dim=16,
            llm_features_dim=24,
            mrope_section=(4, 2, 2),
        ),
        latent=(1, 128, 4, 4),
        text=(8, 24),
        words=8,
        conditioning=range(6),
        extras=_mask(8, 6),
        tokens=_lists(layers=_joined(24, range(8, 24), range(6))),
    ),
    FamilyCase(
        name="joyimage",
        family="joyimage",
        build=from_config(
            "JoyImage",
            hidden_size=32,
            num_attention_heads=2,
            text_dim=24,
            mlp_width_ratio=2.0,
            num_layers=2,
            rope_dim_list=[4, 6, 6],
        ),
        latent=(1, 16, 1, 8, 8),
        text=(8, 24),
        extras=_references((1, 16, 1, 8, 8)),
        tokens=_lists(double_blocks=_double(32, 8, text_moved=range(6))),
    ),
)

IMAGE_CASES = TIER_ONE + TIER_TWO
