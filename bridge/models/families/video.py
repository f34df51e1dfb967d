"""Rows of the video families (and of image models that share a video model's class)."""

from __future__ import annotations

from dataclasses import replace

from .lists import AFTER_TEXT, FLUX_LISTS, NO_TEXT, TUPLE, UNET_LISTS, joint
from .schema import BlockList, Family, Output, StateArgument, Stream

T5 = {4096: "t5xxl.last"}

# in an image-to-video model its output is the sum of what is read from text and from the image
WAN_BLOCKS = BlockList("blocks", reads=(Output("cross_attn"),))
WAN = Family(
    name="wan",
    class_name="WanModel",
    lists=(WAN_BLOCKS,),
    width="dim",
    channels="in_dim",
    entry="patch_embedding",
    layout="wan",
    states={
        "conditioning": (StateArgument("c_crossattn", {4096: "umt5xxl.last"}),),
        "clip_vision": (StateArgument("clip_fea", {1280: "clip-vision-h.penultimate"}, read_by="img_emb"),),
    },
    names={
        (1536, 30, 16): "wan2.1-1.3b",
        (5120, 40, 16): "wan2-14b",  # Wan 2.1 and both experts of 2.2: one shape, told apart by fingerprint
        (5120, 40, 36): "wan2-i2v-14b",
        (3072, 30, 48): "wan2.2-ti2v-5b",
    },
)


def ltx2_states(video: dict[int, str], audio: dict[int, str]) -> tuple[StateArgument, ...]:
    """The two connectors' states, side by side in the channels of one argument."""
    return (
        StateArgument("c_crossattn", video, name="connector.video", part="ltx2_video"),
        StateArgument("c_crossattn", audio, name="connector.audio", part="ltx2_audio"),
    )


LTX2 = Family(
    name="ltx2",
    class_name="LTXAVModel",
    where={"caption_proj_before_connector": False},
    lists=(
        BlockList(
            "transformer_blocks",
            (Stream("image", item=0), Stream("audio", item=1, width="audio_inner_dim")),
            reads=(Output("attn2"), Output("audio_attn2", Stream("audio", width="audio_inner_dim"))),
        ),
    ),
    width="inner_dim",
    channels="in_channels",
    entry="patchify_proj",
    layout="ltx2",
    states={"conditioning": ltx2_states({3840: "ltx2.connector.video"}, {3840: "ltx2.connector.audio"})},
    names={(4096, 48, 128): "ltx2-19b"},
)

COSMOS = Family(
    name="cosmos1",
    class_name="GeneralDIT",
    lists=(BlockList("blocks", dims="THWBD", reads=(Output("blocks.1.block", dims="THWBD"),)),),
    width="model_channels",
    channels="in_channels",
    entry="x_embedder",
    layout="cosmos",
    states={"conditioning": (StateArgument("c_crossattn", {1024: "t5-11b.last"}, mask="attention_mask"),)},
    names={(4096, 28, 16): "cosmos1-7b", (4096, 28, 17): "cosmos1-i2v-7b", (5120, 36, 16): "cosmos1-14b"},
)

VIDEO_FAMILIES = (
    WAN,
    replace(
        WAN,
        name="wan-vace",
        class_name="VaceWanModel",
        # a VACE block returns what is added to the video tokens, and its own state
        lists=(
            WAN_BLOCKS,
            replace(WAN_BLOCKS, name="vace_blocks", streams=(Stream("image", item=0),), replaced_as="", beside=True),
        ),
        names={(1536, 30, 16): "wan2.1-vace-1.3b", (5120, 40, 16): "wan2.1-vace-14b"},
    ),
    replace(WAN, name="wan-camera", class_name="CameraWanModel", names={}),
    replace(WAN, name="wan-s2v", class_name="WanModel_S2V", names={(5120, 40, 16): "wan2.2-s2v-14b"}),
    replace(WAN, name="wan-humo", class_name="HumoWanModel", names={}),
    replace(WAN, name="wan-animate", class_name="AnimateWanModel", names={(5120, 40, 36): "wan2.2-animate-14b"}),
    replace(WAN, name="wan-scail", class_name="SCAILWanModel", layout="wan_scail", names={}),
    replace(WAN, name="wan-scail2", class_name="SCAIL2WanModel", layout="wan_scail", names={}),
    replace(
        WAN,
        name="wan-ar",
        class_name="CausalWanModel",
        # with the text's keys in its cache a block calls the last projection alone
        lists=(replace(WAN_BLOCKS, reads=(Output("cross_attn.o"),)),),
        layout="wan_ar",
        names={(1536, 30, 16): "wan2.1-ar-1.3b"},
    ),
    # either of two patch embeddings runs, by the frame rate
    replace(WAN, name="wan-dancer", class_name="WanDancerModel", entry="time_embedding", names={}),
    Family(
        name="ltxv",
        class_name="LTXVModel",
        lists=(BlockList("transformer_blocks", reads=(Output("attn2"),)),),
        width="inner_dim",
        channels="in_channels",
        entry="patchify_proj",
        layout="ltxv",
        states={"conditioning": (StateArgument("c_crossattn", T5, mask="attention_mask"),)},
        names={(2048, 28, 128): "ltxv-2b", (4096, 48, 128): "ltxv-13b"},
    ),
    LTX2,
    replace(
        LTX2,
        name="ltx2.3",
        where={"caption_proj_before_connector": True},
        states={"conditioning": ltx2_states({4096: "ltx2.3.connector.video"}, {2048: "ltx2.3.connector.audio"})},
        names={(4096, 48, 128): "ltx2.3-22b"},
    ),
    Family(
        name="hunyuan-video",
        class_name="HunyuanVideo",
        lists=FLUX_LISTS,
        width="hidden_size",
        channels="in_channels",
        entry="img_in",
        layout="hunyuan_video",
        states={
            "conditioning": (
                StateArgument(
                    "c_crossattn",
                    {4096: "llava-llama3-8b.hunyuan-video", 3584: "qwen2.5-vl-7b.hunyuan"},
                    mask="attention_mask",
                ),
            ),
            "clip_vision": (StateArgument("clip_fea", {1152: "siglip-so400m.last"}, read_by="vision_in"),),
        },
        names={
            (3072, 20, 16): "hunyuan-video",
            (3072, 20, 33): "hunyuan-video-i2v",
            (3072, 20, 32): "hunyuan-video-skyreels-i2v",
            (2048, 54, 65): "hunyuan-video-1.5",
            (3584, 20, 64): "hunyuan-image-2.1",
        },
    ),
    Family(
        name="cogvideox",
        class_name="CogVideoXTransformer3DModel",
        lists=(BlockList("blocks", TUPLE, reads=joint("attn_out", AFTER_TEXT)),),
        width="dim",
        channels="in_channels",
        entry="patch_embed",
        layout="cogvideox",
        states={"conditioning": (StateArgument("c_crossattn", T5),)},
        names={(1920, 30, 16): "cogvideox-2b", (3072, 42, 16): "cogvideox-5b", (3072, 42, 32): "cogvideox-5b-i2v"},
    ),
    Family(
        name="mochi",
        class_name="AsymmDiTJoint",
        lists=(
            BlockList(
                "blocks",
                # the last block hands the text on as it came, and nothing reads it
                (Stream("image", item=0), Stream("text", item=1, width="hidden_size_y", in_last=False)),
                reads=joint("attn.proj_x"),
            ),
        ),
        width="hidden_size_x",
        channels="in_channels",
        entry="x_embedder",
        layout="mochi",
        states={"conditioning": (StateArgument("c_crossattn", T5, mask="attention_mask"),)},
        names={(3072, 48, 12): "mochi-1"},
    ),
    COSMOS,
    replace(
        COSMOS,
        name="cosmos-predict2",
        class_name="MiniTrainDIT",
        lists=(BlockList("blocks", dims="BTHWD", reads=(Output("cross_attn"),)),),
        states={"conditioning": (StateArgument("c_crossattn", {1024: "t5-11b.last"}),)},
        names={
            (2048, 28, 16): "cosmos-predict2-2b",
            (2048, 28, 17): "cosmos-predict2-i2v-2b",
            (5120, 36, 16): "cosmos-predict2-14b",
            (5120, 36, 17): "cosmos-predict2-i2v-14b",
        },
    ),
    replace(
        COSMOS,
        name="anima",
        class_name="Anima",
        lists=(BlockList("blocks", dims="BTHWD", reads=(Output("cross_attn"),)),),
        states={"conditioning": (StateArgument("c_crossattn", {1024: "anima.adapter"}),)},
        names={},
    ),
    Family(
        name="kandinsky5",
        class_name="Kandinsky5",
        lists=(
            BlockList("text_transformer_blocks", (Stream("text"),), replaced_as="", unread=NO_TEXT),
            BlockList("visual_transformer_blocks", reads=(Output("cross_attention"),)),
        ),
        width="model_dim",
        channels="visual_embed_dim",
        entry="visual_embeddings",
        layout="kandinsky5",
        states={
            "conditioning": (StateArgument("c_crossattn", {3584: "qwen2.5-vl-7b.kandinsky5"}, mask="attention_mask"),)
        },
    ),
    Family(
        name="svd",
        class_name="UNetModel",
        where={"use_temporal_resblocks": True},
        lists=tuple(replace(blocks, unread="Its blocks read an image and no text.") for blocks in UNET_LISTS),
        width="model_channels",
        channels="in_channels",
        entry="time_embed",
        layout="whole",
        # not a prompt: the embedding of the image
        states={"conditioning": (StateArgument("c_crossattn", {1024: "clip-vision-h.image_embeds"}),)},
        names={(320, 12, 8): "svd"},
    ),
)
