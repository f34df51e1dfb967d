"""Where the blocks of each family read the text, written down by hand: "list.stream" of `cross_attention` points."""

from __future__ import annotations

BLOCKS = ("blocks.image",)
DOUBLE = ("double_blocks.image",)
LAYERS = ("layers.image",)
TRANSFORMERS = ("transformer_blocks.image",)
SOUND = ("transformer_blocks.image", "transformer_blocks.audio")
READS: dict[str, tuple[str, ...]] = {
    "wan": BLOCKS,
    "wan-vace": ("blocks.image", "vace_blocks.image"),
    "wan-camera": BLOCKS,
    "wan-s2v": BLOCKS,
    "wan-humo": BLOCKS,
    "wan-animate": BLOCKS,
    "wan-scail": BLOCKS,
    "wan-scail2": BLOCKS,
    "wan-ar": BLOCKS,
    "wan-dancer": BLOCKS,
    "ltxv": TRANSFORMERS,
    "ltx2": SOUND,
    "ltx2.3": SOUND,
    "hunyuan-video": DOUBLE,
    "cogvideox": BLOCKS,
    "mochi": BLOCKS,
    "cosmos1": BLOCKS,
    "cosmos-predict2": BLOCKS,
    "anima": BLOCKS,
    "kandinsky5": ("visual_transformer_blocks.image",),
    "svd": (),
    "flux2": DOUBLE,
    "flux": DOUBLE,
    "chroma": DOUBLE,
    "chroma-radiance": DOUBLE,
    "sd3": ("joint_blocks.image",),
    "sd1": TRANSFORMERS,
    "sd2": TRANSFORMERS,
    "sdxl": TRANSFORMERS,
    "qwen-image": TRANSFORMERS,
    "lumina2": LAYERS,
    "z-image": LAYERS,
    "z-image-pixel": LAYERS,
    "mage-flow": TRANSFORMERS,
    "lens": TRANSFORMERS,
    "hidream": ("double_stream_blocks.image", "single_stream_blocks.image"),
    "hidream-o1": LAYERS,
    "auraflow": ("double_layers.image", "single_layers.image"),
    "pixeldit": ("patch_blocks.image",),
    "omnigen2": LAYERS,
    "boogu": ("double_stream_layers.image", "single_stream_layers.image"),
    "ernie": LAYERS,
    "pixart": BLOCKS,
    "hunyuan-dit": BLOCKS,
    "krea2": BLOCKS,
    "ideogram4": LAYERS,
    "joyimage": DOUBLE,
}
