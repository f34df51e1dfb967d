"""The published image models, built at their real sizes without memory: the map knows their names and text spaces."""

from __future__ import annotations

from typing import Any

import pytest
from family_cases.image import CHROMA, FLUX, FLUX2, NEXT_DIT, RADIANCE, UNET, Z_IMAGE

LDM = "comfy.ldm."
FLUX_CLASS = LDM + "flux.model:Flux"
UNET_CLASS = LDM + "modules.diffusionmodules.openaimodel:UNetModel"
SD3_CLASS = LDM + "modules.diffusionmodules.mmdit:OpenAISignatureMMDITWrapper"
NEXT_DIT_CLASS = LDM + "lumina.model:NextDiT"

FLUX_1 = {"hidden_size": 3072, "num_heads": 24, "mlp_ratio": 4.0, "depth": 19, "depth_single_blocks": 38}
SD_1 = {
    **UNET,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}
SDXL = {
    **SD_1,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "num_head_channels": 64,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
REFINER = {
    **SDXL,
    "model_channels": 384,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
    "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    "transformer_depth_middle": 4,
    "adm_in_channels": 2560,
}
HIDREAM = {"patch_size": 2, "in_channels": 16, "caption_channels": [4096, 4096], "llama_layers": list(range(48))}
LUMINA = {**NEXT_DIT, "dim": 2304, "n_layers": 26, "n_refiner_layers": 2, "n_heads": 24, "n_kv_heads": 8}
TURBO = {**Z_IMAGE, "dim": 3840, "n_layers": 30, "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30}
OMNIGEN = {"hidden_size": 2520, "num_layers": 32, "num_attention_heads": 21, "num_kv_heads": 7}

# name in the map -> (class, sizes that are not the class's own, width of its text states, their space)
PUBLISHED: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "flux.1": (
        FLUX_CLASS,
        {**FLUX, **FLUX_1, "in_channels": 16, "out_channels": 16, "guidance_embed": True},
        4096,
        "t5xxl.last",
    ),
    "flux.2-dev": (
        FLUX_CLASS,
        {**FLUX2, "hidden_size": 6144, "num_heads": 48, "depth": 8, "depth_single_blocks": 48},
        15360,
        "mistral3-24b.layers10-20-30",
    ),
    "flux.2-klein-4b": (
        FLUX_CLASS,
        {**FLUX2, "hidden_size": 3072, "num_heads": 24, "depth": 5, "depth_single_blocks": 20},
        7680,
        "qwen3-4b.layers9-18-27",
    ),
    "flux.2-klein-9b": (
        FLUX_CLASS,
        {**FLUX2, "hidden_size": 4096, "num_heads": 32, "depth": 8, "depth_single_blocks": 24},
        12288,
        "qwen3-8b.layers9-18-27",
    ),
    "chroma1": (LDM + "chroma.model:Chroma", {**CHROMA, **FLUX_1, "out_dim": 3072}, 4096, "t5xxl.last"),
    "chroma1-radiance": (
        LDM + "chroma_radiance.model:ChromaRadiance",
        {**RADIANCE, **FLUX_1, "out_dim": 3072},
        4096,
        "t5xxl.last",
    ),
    "sd3-2b": (SD3_CLASS, {"input_size": None, "in_channels": 16, "depth": 24}, 4096, "sd3.t5"),
    "sd3.5-large": (SD3_CLASS, {"input_size": None, "in_channels": 16, "depth": 38}, 4096, "sd3.t5"),
    "sd1.5": (
        UNET_CLASS,
        {**SD_1, "num_heads": 8, "num_head_channels": -1, "context_dim": 768},
        768,
        "clip-l.last",
    ),
    "sd2": (UNET_CLASS, {**SD_1, "num_head_channels": 64, "context_dim": 1024}, 1024, "openclip-h.penultimate"),
    "sdxl": (UNET_CLASS, {**SDXL, "context_dim": 2048}, 2048, "sdxl.clip"),
    "sdxl-refiner": (UNET_CLASS, {**REFINER, "context_dim": 1280}, 1280, "clip-g.penultimate"),
    "qwen-image": (LDM + "qwen_image.model:QwenImageTransformer2DModel", {}, 3584, "qwen2.5-vl-7b.last"),
    "lumina2": (NEXT_DIT_CLASS, {**LUMINA, "axes_dims": [32, 32, 32]}, 2304, "gemma2-2b.penultimate"),
    "z-image": (NEXT_DIT_CLASS, {**TURBO, "axes_dims": [32, 48, 48]}, 2560, "qwen3-4b.penultimate"),
    "mage-flow": (LDM + "mage_flow.model:MageFlowTransformer2DModel", {}, 2560, "qwen3-vl-4b.last"),
    "lens": (LDM + "lens.model:LensTransformer2DModel", {}, 11520, "gpt-oss-20b.layers5-11-17-23"),
    "hidream-i1": (LDM + "hidream.model:HiDreamImageTransformer2DModel", HIDREAM, 4096, "t5xxl.last"),
    "hidream-o1": (LDM + "hidream_o1.model:HiDreamO1Transformer", {}, 0, ""),  # takes token ids
    "auraflow": (LDM + "aura.mmdit:MMDiT", {}, 2048, "pile-t5-xl.last"),
    "omnigen2": (LDM + "omnigen.omnigen2:OmniGen2Transformer2DModel", OMNIGEN, 2048, "qwen2.5-vl-3b.last"),
    "boogu": (LDM + "boogu.model:BooguTransformer2DModel", {}, 4096, "qwen3-vl-8b.last"),
    "pixeldit-t2i": (LDM + "pixeldit.model:PixDiT_T2I", {}, 2304, "gemma2-2b.last"),
    "ernie-image": (LDM + "ernie.model:ErnieImageModel", {}, 3072, "ministral3-3b.penultimate"),
    "pixart-xl": (LDM + "pixart.pixartms:PixArtMS", {}, 4096, "t5xxl.last"),
    "hunyuan-dit": (
        LDM + "hydit.models:HunYuanDiT",
        {"hidden_size": 1408, "depth": 40},
        1024,
        "hunyuan-dit.clip",
    ),
    "krea2": (LDM + "krea2.model:SingleStreamDiT", {}, 30720, "qwen3-vl-4b.layers2-35"),
    "ideogram4": (LDM + "ideogram4.model:Ideogram4Transformer2DModel", {}, 53248, "qwen3-vl-8b.layers13"),
    "joyimage": (
        LDM + "joyimage.model:JoyImageTransformer3DModel",
        {"hidden_size": 4096, "num_attention_heads": 32, "num_layers": 40},
        4096,
        "qwen3-vl-8b.last",
    ),
}


@pytest.mark.usefixtures("comfy_in_process")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_name_and_text_space(name):
    import comfy.ops
    import torch
    from safety_steering_pack.bridge.models.model_map import read_shape, state_space

    path, sizes, width, space = PUBLISHED[name]
    module, class_name = path.split(":")
    # an older ComfyUI has fewer; test_core_names wants them all on the one that the pack is made for
    model = getattr(pytest.importorskip(module), class_name)(
        **sizes, dtype=torch.bfloat16, device="meta", operations=comfy.ops.disable_weight_init
    )
    shape = read_shape(model)
    assert shape.name == name
    if space:
        assert state_space(shape.family, "conditioning", width) == space
    else:
        assert not shape.family.states
