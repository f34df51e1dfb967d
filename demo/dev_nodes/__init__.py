"""Development nodes: what cannot shrink through the stock loaders, and instruments for the tests. Not part of the pack.

The test server, the demo and ``make ui`` link this folder into ``custom_nodes`` beside the pack.
"""

from comfy_api.latest import ComfyExtension, io

from dev_nodes.clip_vision import ClipVision
from dev_nodes.compile_model import CompileModel, GraphCount
from dev_nodes.fail import Fail
from dev_nodes.hook_census import HookCensus
from dev_nodes.minilm_text_encode import MiniLMTextEncode
from dev_nodes.overflow import Overflow
from dev_nodes.replace_block import ReplaceBlock
from dev_nodes.stand_in_clip import StandInClip
from dev_nodes.stand_in_clip_vision import StandInClipVision
from dev_nodes.start_frame import StartFrame
from dev_nodes.text_encode import TextEncode
from dev_nodes.trace import Trace


class DevelopmentNodes(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        stand_ins = [TextEncode, ClipVision, StartFrame, MiniLMTextEncode, StandInClip, StandInClipVision]
        disturbances = [Fail, Overflow, ReplaceBlock, CompileModel]
        instruments = [HookCensus, Trace, GraphCount]
        return [*stand_ins, *disturbances, *instruments]


async def comfy_entrypoint() -> ComfyExtension:
    return DevelopmentNodes()
