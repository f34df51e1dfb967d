"""Rows of the image families."""

from __future__ import annotations

from dataclasses import replace

from .lists import (
    AFTER_TEXT,
    CAPTION_REFINER,
    FLUX_LISTS,
    JOINED,
    NOISE_REFINER,
    TEXT_FIRST,
    TEXT_LAST,
    TUPLE,
    UNET_LISTS,
    UNET_READS,
    joint,
)
from .schema import BlockList, Family, Output, StateArgument, Stream

T5XXL = {4096: "t5xxl.last"}


def _text(spaces: dict[int, str], mask: str = "") -> dict[str, tuple[StateArgument, ...]]:
    return {"conditioning": (StateArgument("c_crossattn", spaces, mask),)}


# several families are built alike; their rows differ from one of these three
_FLUX = Family(
    name="flux",
    class_name="Flux",
    lists=FLUX_LISTS,
    width="hidden_size",
    channels="in_channels",
    entry="img_in",
    layout="references_last",
    states=_text(T5XXL | {3584: "qwen2.5-vl-7b.longcat"}),
    names={(3072, 19, 64): "flux.1"},
)
_SD2 = Family(
    name="sd2",
    class_name="UNetModel",
    lists=(*UNET_LISTS, UNET_READS),
    width="model_channels",
    channels="in_channels",
    entry="time_embed",
    layout="whole",
    states=_text({1024: "openclip-h.penultimate"}),
    names={(320, 12, 4): "sd2"},
)
_Z_IMAGE = Family(
    name="z-image",
    class_name="NextDiT",
    lists=(CAPTION_REFINER, NOISE_REFINER, BlockList("layers", JOINED, "", reads=joint("attention", AFTER_TEXT))),
    width="dim",
    channels="in_channels",
    entry="x_embedder",
    layout="lumina",
    states=_text({2560: "qwen3-4b.penultimate"}, mask="attention_mask"),
    names={(3840, 2, 16): "z-image"},
)

IMAGE_FAMILIES = (
    replace(
        _FLUX,
        name="flux2",
        where={"params.global_modulation": True},
        states=_text(
            {
                15360: "mistral3-24b.layers10-20-30",
                7680: "qwen3-4b.layers9-18-27",
                12288: "qwen3-8b.layers9-18-27",
            }
        ),
        names={(6144, 8, 128): "flux.2-dev", (3072, 5, 128): "flux.2-klein-4b", (4096, 8, 128): "flux.2-klein-9b"},
    ),
    _FLUX,
    replace(
        _FLUX,
        name="chroma",
        class_name="Chroma",
        layout="image_last",
        states=_text(T5XXL),
        names={(3072, 19, 64): "chroma1"},
    ),
    replace(
        _FLUX,
        name="chroma-radiance",
        class_name="ChromaRadiance",
        entry="img_in_patch",
        layout="image_last",
        states=_text(T5XXL),
        names={(3072, 19, 3): "chroma1-radiance"},
    ),
    Family(
        name="sd3",
        class_name="OpenAISignatureMMDITWrapper",
        lists=(
            BlockList(
                "joint_blocks",
                (Stream("image", item=1), Stream("text", item=0, in_last=False)),
                reads=joint("x_block.attn.proj"),
            ),
        ),
        width="hidden_size",
        channels="in_channels",
        entry="x_embedder",
        layout="sd3",
        states={
            "conditioning": (
                StateArgument("c_crossattn", {4096: "sd3.t5"}, part="sd3_t5"),
                StateArgument("c_crossattn", {2048: "sd3.clip"}, name="clip", part="sd3_clip"),
            )
        },
        names={(1536, 24, 16): "sd3-2b", (2432, 38, 16): "sd3.5-large"},
    ),
    replace(
        _SD2,
        name="sd1",
        where={"num_heads": 8},
        states=_text({768: "clip-l.last"}),
        names={(320, 12, 4): "sd1.5"},
    ),
    replace(
        _SD2,
        name="sdxl",
        where={"num_classes": "sequential"},
        states=_text({2048: "sdxl.clip", 1280: "clip-g.penultimate"}),
        names={(320, 9, 4): "sdxl", (384, 12, 4): "sdxl-refiner"},
    ),
    _SD2,
    Family(
        name="qwen-image",
        class_name="QwenImageTransformer2DModel",
        lists=(BlockList("transformer_blocks", TEXT_FIRST, reads=joint("attn.to_out.0")),),
        width="inner_dim",
        channels="in_channels",
        entry="img_in",
        layout="references_last",
        states=_text({3584: "qwen2.5-vl-7b.last"}, mask="attention_mask"),
        names={(3072, 60, 64): "qwen-image"},
    ),
    replace(
        _Z_IMAGE,
        name="lumina2",
        where={"pad_tokens_multiple": None},
        states=_text({2304: "gemma2-2b.penultimate"}, mask="attention_mask"),
        names={(2304, 2, 16): "lumina2"},
    ),
    _Z_IMAGE,
    replace(_Z_IMAGE, name="z-image-pixel", class_name="NextDiTPixelSpace", names={}),
    Family(
        name="mage-flow",
        class_name="MageFlowTransformer2DModel",
        lists=(BlockList("transformer_blocks", TEXT_FIRST, reads=joint("attn.to_out.0")),),
        width="inner_dim",
        channels="in_channels",
        entry="img_in",
        layout="references_last",
        states=_text({2560: "qwen3-vl-4b.last"}, mask="attention_mask"),
        names={(3072, 12, 128): "mage-flow"},
    ),
    Family(
        name="lens",
        class_name="LensTransformer2DModel",
        lists=(BlockList("transformer_blocks", TEXT_FIRST, reads=joint("attn.to_out.0")),),
        width="inner_dim",
        channels="in_channels",
        entry="img_in",
        layout="grid_last",
        states=_text({11520: "gpt-oss-20b.layers5-11-17-23"}, mask="attention_mask"),
        names={(1536, 48, 128): "lens"},
    ),
    Family(
        name="hidream",
        class_name="HiDreamImageTransformer2DModel",
        lists=(
            BlockList("double_stream_blocks", TUPLE, "", reads=joint("block.attn1.to_out")),
            BlockList("single_stream_blocks", TEXT_LAST, "", reads=joint("block.attn1.to_out")),
        ),
        width="inner_dim",
        channels="out_channels",
        entry="x_embedder",
        layout="hidream",
        states=_text(T5XXL),  # its Llama states travel apart, one space a layer; they are steered in the blocks' text
        names={(2560, 16, 16): "hidream-i1"},
    ),
    Family(
        name="hidream-o1",
        class_name="HiDreamO1Transformer",
        # no text stream: the model keeps the prompt's keys from run to run, steered ones too
        lists=(
            BlockList(
                "layers",
                (Stream("image", item=0),),
                path="language_model.layers",
                reads=joint("self_attn", Stream("image", item=0)),
            ),
        ),
        width="hidden_size",
        channels="in_channels",
        entry="x_embedder",
        layout="hidream_o1",
        states={},
        names={(4096, 36, 3): "hidream-o1"},
    ),
    Family(
        name="auraflow",
        class_name="MMDiT",
        lists=(
            BlockList("double_layers", TEXT_FIRST, reads=joint("attn.w2o")),
            BlockList("single_layers", JOINED, "single_block", reads=joint("attn", AFTER_TEXT)),
        ),
        width="register_tokens.shape.2",
        channels="out_channels",
        entry="init_x_linear",
        layout="aura",
        states=_text({2048: "pile-t5-xl.last"}),
        names={(3072, 4, 4): "auraflow"},
    ),
    Family(
        name="pixeldit",
        class_name="PixDiT_T2I",
        # the pixel blocks behind these are not steered: there a row is one patch of one picture, with its pixels
        lists=(BlockList("patch_blocks", TUPLE, "", reads=joint("attn.proj_x")),),
        width="hidden_size",
        channels="in_channels",
        entry="s_embedder",
        layout="image_last",
        states=_text({2304: "gemma2-2b.last"}),
        names={(1536, 14, 3): "pixeldit-t2i"},
    ),
    Family(
        name="omnigen2",
        class_name="OmniGen2Transformer2DModel",
        lists=(CAPTION_REFINER, NOISE_REFINER, BlockList("layers", JOINED, "", reads=joint("attn", AFTER_TEXT))),
        width="hidden_size",
        channels="out_channels",
        entry="x_embedder",
        layout="image_last",
        states=_text({2048: "qwen2.5-vl-3b.last"}, mask="attention_mask"),
        names={(2520, 2, 16): "omnigen2"},
    ),
    Family(
        name="boogu",
        class_name="BooguTransformer2DModel",
        lists=(
            CAPTION_REFINER,
            NOISE_REFINER,
            BlockList("double_stream_layers", TUPLE, "", reads=joint("img_instruct_attn", AFTER_TEXT)),
            BlockList("single_stream_layers", JOINED, "", reads=joint("attn", AFTER_TEXT)),
        ),
        width="hidden_size",
        channels="out_channels",
        entry="x_embedder",
        layout="image_last",
        states=_text({4096: "qwen3-vl-8b.last"}, mask="attention_mask"),
        names={(3360, 2, 16): "boogu"},
    ),
    Family(
        name="ernie",
        class_name="ErnieImageModel",
        lists=(BlockList("layers", TEXT_LAST, "", reads=joint("self_attention")),),
        width="hidden_size",
        channels="out_channels",
        entry="x_embedder",
        layout="image_first",
        states=_text({3072: "ministral3-3b.penultimate"}),
        names={(4096, 36, 128): "ernie-image"},
    ),
    Family(
        name="pixart",
        class_name="PixArtMS",
        lists=(BlockList("blocks", replaced_as="", reads=(Output("cross_attn"),)),),
        width="hidden_size",
        channels="in_channels",
        entry="x_embedder",
        layout="image_last",
        states=_text(T5XXL),
        names={(1152, 28, 4): "pixart-xl"},
    ),
    Family(
        name="hunyuan-dit",
        class_name="HunYuanDiT",
        lists=(BlockList("blocks", reads=(Output("attn2", Stream("image", item=0)),)),),
        width="hidden_size",
        channels="in_channels",
        entry="x_embedder",
        layout="image_last",
        states={
            "conditioning": (
                StateArgument("c_crossattn", {1024: "hunyuan-dit.clip"}, "text_embedding_mask"),
                StateArgument("encoder_hidden_states_t5", {2048: "mt5xl.last"}, "text_embedding_mask_t5", name="t5"),
            )
        },
        names={(1408, 40, 4): "hunyuan-dit"},
    ),
    Family(
        name="krea2",
        class_name="SingleStreamDiT",
        lists=(BlockList("blocks", JOINED, "", reads=joint("attn", AFTER_TEXT)),),
        width="first.out_features",
        channels="channels",
        entry="first",
        layout="krea2",
        states=_text({30720: "qwen3-vl-4b.layers2-35"}),
        names={(6144, 28, 16): "krea2"},
    ),
    Family(
        name="ideogram4",
        class_name="Ideogram4Transformer2DModel",
        lists=(BlockList("layers", JOINED, "", reads=joint("attention", AFTER_TEXT)),),
        width="input_proj.out_features",
        channels="in_channels",
        entry="input_proj",
        layout="grid_last",
        states=_text({53248: "qwen3-vl-8b.layers13"}, mask="attention_mask"),
        names={(4608, 34, 128): "ideogram4"},
    ),
    Family(
        name="joyimage",
        class_name="JoyImageTransformer3DModel",
        lists=(BlockList("double_blocks", TUPLE, reads=joint("attn", Stream("image", item=0))),),
        width="img_in.out_channels",
        channels="out_channels",
        entry="img_in",
        layout="references_last",
        states=_text({4096: "qwen3-vl-8b.last"}),
        names={(4096, 40, 16): "joyimage"},
    ),
)
