"""What several rows share: the streams that blocks return, where blocks read the text, and whole lists of blocks."""

from __future__ import annotations

from .schema import BlockList, Output, Stream

# blocks that return (image, text), (text, image), and one tensor with the text in front of the image or behind it
TUPLE = (Stream("image", item=0), Stream("text", item=1))
TEXT_FIRST = (Stream("image", item=1), Stream("text", item=0))
IMAGE = Stream("image")
AFTER_TEXT = Stream("image", after=("text",))
JOINED = (AFTER_TEXT, Stream("text"))
TEXT_LAST = (IMAGE, Stream("text", after=("image",)))

# why a list has no `reads`
FUSED = "There attention and MLP leave through one projection, so nothing holds what a block reads alone."
NO_TEXT = "These blocks do not read the text."


def joint(module: str, stream: Stream = IMAGE) -> tuple[Output, ...]:
    """The image's tokens in the output of an attention over text and image together."""
    return (Output(module, stream, joint=True),)


CAPTION_REFINER = BlockList("context_refiner", (Stream("text"),), replaced_as="", beside=True, unread=NO_TEXT)
NOISE_REFINER = BlockList("noise_refiner", replaced_as="", unread=NO_TEXT)
# core runs the children of a UNet block one by one; those of the middle block are blocks themselves
_WIDTHS = ("out_channels", "in_channels")
UNET_LISTS = (
    BlockList("input_blocks", replaced_as="", dims="BDHW", last_child=True, block_widths=_WIDTHS),
    BlockList("middle_block", replaced_as="", dims="BDHW", block_widths=_WIDTHS),
    BlockList("output_blocks", replaced_as="", dims="BDHW", last_child=True, block_widths=_WIDTHS),
)
# the attention to the text in every transformer of a UNet. Its last projection also runs where another node replaces
# the attention, as IP-Adapter does
UNET_READS = BlockList(
    "transformer_blocks",
    (),
    replaced_as="",
    beside=True,
    block_widths=("out_features",),
    reads=(Output("attn2.to_out.0"),),
    holding="attn2",
)
FLUX_LISTS = (
    BlockList("double_blocks", TUPLE, reads=joint("img_attn.proj")),
    BlockList("single_blocks", JOINED, "single_block", unread=FUSED),
)
