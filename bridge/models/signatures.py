"""The tensors by which each family's checkpoint is recognised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Signature:
    """How a family is recognised. A size is written "tensor:dim"; "tensor:dim*tensor:dim" is the product of two.

    has: tensors that no family further down in the table has together.
    width, states: the size of the hidden state and of the prompt states.
    where: sizes and their values, if the tensors alone do not tell. others: stream -> the size of its width.
    """

    family: str
    has: tuple[str, ...]
    width: str
    states: str = ""
    where: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)


# families built alike
_WAN = Signature(
    "wan", ("head.modulation", "text_embedding.0.weight"), "head.modulation:2", "text_embedding.0.weight:1"
)
_FLUX = Signature(
    "flux",
    ("time_in.in_layer.weight", "txt_in.weight", "double_blocks.0.img_mod.lin.weight"),
    "img_in.weight:0",
    "txt_in.weight:1",
)
_LUMINA = Signature(
    "lumina2",
    ("cap_embedder.1.weight", "noise_refiner.0.attention.k_norm.weight"),
    "x_embedder.weight:0",
    "cap_embedder.1.weight:1",
)
_OMNIGEN = Signature(
    "omnigen2",
    ("time_caption_embed.caption_embedder.1.weight",),
    "x_embedder.weight:0",
    "time_caption_embed.caption_embedder.1.weight:1",
)
_PREDICT2 = Signature(
    "cosmos-predict2",
    ("x_embedder.proj.1.weight", "blocks.0.mlp.layer1.weight"),
    "x_embedder.proj.1.weight:0",
    "blocks.0.cross_attn.k_proj.weight:1",
)
_LTX2 = Signature(
    "ltx2",
    ("audio_adaln_single.linear.weight", "caption_projection.linear_1.weight"),
    "patchify_proj.weight:0",
    "caption_projection.linear_1.weight:1",
    others={"audio": "audio_patchify_proj.weight:0"},
)
_UNET = "input_blocks.0.0.weight"
_UNET_STATES = "middle_block.1.transformer_blocks.0.attn2.to_k.weight:1"


SIGNATURES = (
    replace(_WAN, family="wan-dancer", has=("patch_embedding_global.weight",)),
    replace(_WAN, family="wan-scail2", has=("patch_embedding_mask.weight", "patch_embedding_pose.weight")),
    replace(_WAN, family="wan-scail", has=("patch_embedding_pose.weight",)),
    replace(_WAN, family="wan-animate", has=("face_adapter.fuser_blocks.0.k_norm.weight",)),
    replace(_WAN, family="wan-humo", has=("audio_proj.audio_proj_glob_1.layer.bias",)),
    replace(_WAN, family="wan-s2v", has=("casual_audio_encoder.encoder.final_linear.weight",)),
    replace(_WAN, family="wan-camera", has=("control_adapter.conv.weight",)),
    replace(_WAN, family="wan-vace", has=("vace_patch_embedding.weight",)),
    _WAN,  # the causal one has the same tensors
    _LTX2,
    replace(
        _LTX2,
        family="ltx2.3",
        has=("audio_adaln_single.linear.weight",),
        states="transformer_blocks.0.attn2.to_k.weight:1",
    ),
    Signature(
        "ltxv",
        ("adaln_single.linear.weight", "patchify_proj.weight"),
        "patchify_proj.weight:0",
        "caption_projection.linear_1.weight:1",
    ),
    Signature(
        "hunyuan-video",
        ("txt_in.individual_token_refiner.blocks.0.norm1.weight",),
        "img_in.proj.weight:0",
        "txt_in.input_embedder.weight:1",
    ),
    Signature(
        "cogvideox",
        ("patch_embed.text_proj.weight",),
        "patch_embed.text_proj.weight:0",
        "patch_embed.text_proj.weight:1",
    ),
    Signature(
        "mochi",
        ("t5_yproj.weight",),
        "x_embedder.proj.weight:0",
        "t5_yproj.weight:1",
        others={"text": "t5_yproj.weight:0"},
    ),
    Signature(
        "cosmos1",
        ("blocks.block0.blocks.0.block.attn.to_q.0.weight",),
        "blocks.block0.blocks.0.block.attn.to_q.0.weight:0",
        "blocks.block0.blocks.1.block.attn.to_k.0.weight:1",
    ),
    replace(_PREDICT2, family="anima", has=("llm_adapter.blocks.0.cross_attn.q_proj.weight",)),
    _PREDICT2,
    Signature(
        "kandinsky5",
        ("visual_transformer_blocks.0.cross_attention.key_norm.weight",),
        "text_embeddings.in_layer.weight:0",
        "text_embeddings.in_layer.weight:1",
    ),
    Signature("svd", (_UNET, "middle_block.0.time_mixer.mix_factor"), f"{_UNET}:0", _UNET_STATES),
    Signature("sdxl", (_UNET, "label_emb.0.0.weight"), f"{_UNET}:0", _UNET_STATES),
    Signature("sd1", (_UNET,), f"{_UNET}:0", _UNET_STATES, where={_UNET_STATES: 768}),
    Signature("sd2", (_UNET,), f"{_UNET}:0", _UNET_STATES, where={_UNET_STATES: 1024}),
    replace(_FLUX, family="flux2", has=("double_stream_modulation_img.lin.weight",)),
    Signature("chroma-radiance", ("img_in_patch.weight",), "img_in_patch.weight:0", "txt_in.weight:1"),
    replace(_FLUX, family="chroma", has=("distilled_guidance_layer.out_proj.weight", "txt_in.weight")),
    _FLUX,
    Signature(
        "sd3",
        ("joint_blocks.0.context_block.attn.qkv.weight",),
        "context_embedder.weight:0",
        "context_embedder.weight:1",
    ),
    replace(_FLUX, family="lens", has=("txt_norm.0.weight", "txt_in.weight")),
    replace(
        _FLUX,
        family="mage-flow",
        has=("txt_norm.weight", "transformer_blocks.0.img_mod.1.weight"),
        where={"img_in.weight:1": 128},
    ),
    replace(_FLUX, family="qwen-image", has=("txt_norm.weight", "transformer_blocks.0.img_mod.1.weight")),
    replace(_LUMINA, family="z-image-pixel", has=("cap_pad_token", "dec_net.cond_embed.weight")),
    replace(_LUMINA, family="z-image", has=("cap_pad_token", "cap_embedder.1.weight")),
    _LUMINA,
    Signature(
        "hidream",
        ("caption_projection.0.linear.weight",),
        "x_embedder.proj.weight:0",
        "caption_projection.0.linear.weight:1",
    ),
    Signature("hidream-o1", ("x_embedder.proj2.weight", "t_embedder1.mlp.0.weight"), "x_embedder.proj2.weight:0"),
    Signature(
        "auraflow", ("register_tokens", "init_x_linear.weight"), "init_x_linear.weight:0", "cond_seq_linear.weight:1"
    ),
    replace(_OMNIGEN, family="boogu", has=("single_stream_layers.0.norm2.weight",)),
    _OMNIGEN,
    Signature(
        "pixeldit",
        ("pixel_embedder.proj.weight", "patch_blocks.0.attn.qkv_y.weight"),
        "s_embedder.proj.weight:0",
        "y_embedder.proj.weight:1",
        where={"lq_proj.latent_proj.0.weight:0": 0},  # PiD, which sharpens pictures, has it
    ),
    Signature("ernie", ("text_proj.weight", "final_norm.linear.weight"), "text_proj.weight:0", "text_proj.weight:1"),
    Signature(
        "pixart",
        ("y_embedder.y_proj.fc1.weight", "t_block.1.weight"),
        "x_embedder.proj.weight:0",
        "y_embedder.y_proj.fc1.weight:1",
    ),
    Signature("hunyuan-dit", ("mlp_t5.0.weight",), "x_embedder.proj.weight:0", "blocks.0.attn2.kv_proj.weight:1"),
    Signature(
        "krea2",
        ("first.weight", "tmlp.0.weight"),
        "first.weight:0",
        "txtfusion.projector.weight:1*txtmlp.1.weight:1",  # layers of the text encoder, side by side
    ),
    Signature(
        "ideogram4", ("llm_cond_proj.weight", "input_proj.weight"), "input_proj.weight:0", "llm_cond_proj.weight:1"
    ),
    Signature(
        "joyimage",
        ("condition_embedder.text_embedder.linear_1.weight", "double_blocks.0.img_mlp.net.2.weight"),
        "img_in.weight:0",
        "condition_embedder.text_embedder.linear_1.weight:1",
    ),
)
