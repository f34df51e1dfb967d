"""Development nodes: what cannot shrink through the stock loaders, and instruments for the tests. Not part of the pack.

The test server, the demo and ``make ui`` link this folder into ``custom_nodes`` beside the pack.
"""

from comfy_api.latest import ComfyExtension, io

from .clip_vision import ClipVision
from .compile_model import CompileModel, GraphCount
from .fail import Fail
from .hook_census import HookCensus
from .minilm_text_encode import MiniLMTextEncode
from .neighbours import AroundCore, BlockCache, ModelAndGuider, SwapClass, Tiles, WrapBlocks, WrapModel
from .overflow import Overflow
from .replace_block import ReplaceBlock
from .stand_in_clip import StandInClip
from .stand_in_clip_vision import StandInClipVision
from .start_frame import StartFrame
from .text_encode import TextEncode
from .tiny_umt5 import TinyUmT5
from .trace import Trace


class DevelopmentNodes(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        stand_ins = [TextEncode, ClipVision, StartFrame, MiniLMTextEncode, StandInClip, StandInClipVision, TinyUmT5]
        disturbances = [Fail, Overflow, ReplaceBlock, CompileModel]
        neighbours = [SwapClass, WrapModel, WrapBlocks, BlockCache, AroundCore, ModelAndGuider, Tiles]
        instruments = [HookCensus, Trace, GraphCount]
        return [*stand_ins, *disturbances, *neighbours, *instruments]


async def comfy_entrypoint() -> ComfyExtension:
    return DevelopmentNodes()
