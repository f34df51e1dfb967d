"""Models without a row in the map: the generic shape (one list of blocks that return (B, N, D)), and refusals."""

from __future__ import annotations

from torch import nn

from .schema import BlockList, Family, StateArgument

_WIDTHS = ("dim", "hidden_size", "inner_dim", "model_dim", "model_channels")
_CHANNELS = ("in_channels", "in_dim", "out_channels")


def generic_family(model: nn.Module, class_name: str) -> Family | None:
    """A row for an unlisted model with one list of blocks of one class and a width attribute; None for any other.

    Every token counts as generated, because their layout is not known.
    """
    lists = [
        name
        for name, module in model.named_children()
        if isinstance(module, nn.ModuleList) and len(module) > 1 and len({type(block) for block in module}) == 1
    ]
    width = next((name for name in _WIDTHS if isinstance(getattr(model, name, None), int)), None)
    channels = next((name for name in _CHANNELS if isinstance(getattr(model, name, None), int)), None)
    if len(lists) != 1 or width is None or channels is None:
        return None
    return Family(
        name=f"untested.{class_name}",
        class_name=class_name,
        lists=(BlockList(lists[0]),),
        width=width,
        channels=channels,
        entry=f"{lists[0]}.0",
        layout="whole",
        states={"conditioning": (StateArgument("c_crossattn", {}),)},
        tested=False,
    )


_AUDIO = "{} makes sound. Safety Steering steers image and video models; run it without Apply Safety Steering."
_3D = "{} makes 3D shapes. Safety Steering steers image and video models; run it without Apply Safety Steering."
_RESTORES = "{} restores what another model has made. Apply Safety Steering to that model."
_NOT_YET = "{} is not supported yet: its blocks have no row in the model map. Choose another model to steer."
_SEES = "{} reads images and does not generate any. Apply Safety Steering to the model that makes the picture."
# class of `model.diffusion_model` -> why it is refused
REFUSED = {
    class_name: sentence.format(name)
    for sentence, models in (
        (_AUDIO, {"AudioDiffusionTransformer": "Stable Audio", "ACEStepTransformer2DModel": "ACE-Step"}),
        (_AUDIO, {"AceStepConditionGenerationModel": "ACE-Step 1.5"}),
        (_3D, {"Hunyuan3Dv2": "Hunyuan3D 2", "HunYuanDiTPlain": "Hunyuan3D 2.1", "LatentSeqMMFlowModel": "TripoSplat"}),
        (_RESTORES, {"NaDiT": "SeedVR2", "PidNet": "PiD"}),
        (_NOT_YET, {"StageC": "Stable Cascade C", "StageB": "Stable Cascade B", "MiniMaxH3Model": "MiniMax H3"}),
        (_SEES, {"RTv4": "RT-DETR", "DepthAnything3Net": "Depth Anything 3", "SAM3Model": "SAM 3"}),
    )
    for class_name, name in models.items()
}
