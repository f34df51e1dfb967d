"""The predicted cost of a hook on a GPU: operations of a Wan block against bytes that a hook moves.

A block is bound by arithmetic, a hook by memory. So

    ratio = 1 + hooks * (hook bytes / bandwidth) / (blocks * block FLOPs / FLOP rate)

The block's FLOPs are a formula, checked against PyTorch's own counter on ComfyUI's block; the hook's bytes are counted:
every operation that `edit_tokens` dispatches reads its inputs from memory once and writes its output once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from wan import DTYPE, SHAPE, TEXT_TOKENS

# An H100 SXM: dense bf16 and HBM3, with the shares of the peak that large kernels reach in practice.
GPUS = {"flops": 990e12, "flops_efficiency": 0.5, "bandwidth": 3.35e12, "bandwidth_efficiency": 0.7}
# 81 frames: latent frames x rows x columns of 2 x 2 patches
TOKENS = {"720p": 21 * 45 * 80, "480p": 21 * 30 * 52}


def block_flops(tokens: int, text_tokens: int = TEXT_TOKENS) -> int:
    """Multiply-adds (counted as 2) of one Wan block for one sample."""
    width, hidden = SHAPE["dim"], SHAPE["ffn_dim"]
    projections = 2 * width * width * (4 * tokens + 2 * tokens + 2 * text_tokens)
    attention = 4 * width * tokens * (tokens + text_tokens)
    return projections + attention + 4 * width * hidden * tokens


def counted_block_flops(tokens: int) -> int:
    """The same by PyTorch's FlopCounterMode on ComfyUI's block (its attention as plain matrix products)."""
    import comfy.ops
    from comfy.ldm.wan.model import WanAttentionBlock
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    width, heads = SHAPE["dim"], SHAPE["num_heads"]
    block = WanAttentionBlock(
        "t2v_cross_attn", width, SHAPE["ffn_dim"], heads, operation_settings={"operations": comfy.ops.manual_cast}
    )
    x, text = torch.zeros(1, tokens, width), torch.zeros(1, TEXT_TOKENS, width)
    freqs = torch.zeros(1, tokens, 1, width // heads // 2, 2, 2)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        block(x, torch.zeros(1, 1, 6, width), freqs, text, transformer_options={})
    return counter.get_total_flops()


class BytesMoved(TorchDispatchMode):
    """Adds up the bytes of all inputs and outputs of every operation that is not a view."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            leaves = tree_leaves((args, kwargs or {}))
            inputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            self.total += sum(_bytes(tensor) for tensor in [*inputs, *outputs])
        return result


def _bytes(tensor: torch.Tensor) -> int:
    """Bytes in memory: a broadcast dimension has stride 0 and is stored once."""
    stored = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return torch.Size(stored).numel() * tensor.element_size()


@cache
def hook_bytes_per_token(kind: str, norm: str, gate: str) -> float:
    """Bytes that one hook moves for each token of one sample in half precision; independent of the token count."""
    from safety_steering_pack.bridge.models.tokens import TokenRange
    from safety_steering_pack.bridge.steering.injection import Edit, edit_tokens
    from safety_steering_pack.safety_steering.steering.interventions import Intervention, stack_targets
    from tiny.vectors import random_vector

    vector = random_vector({"block.blocks.15.image": ("wan", SHAPE["dim"])})
    targets = stack_targets(vector.at("block.blocks.15.image"), vector.mix, 0).to("cpu", torch.float32)

    def moved(tokens: int) -> int:
        edit = Edit(targets, Intervention(kind, norm, gate), torch.ones(1, 1, 1), None, TokenRange(0, tokens))
        h = torch.zeros(1, tokens, SHAPE["dim"], dtype=DTYPE)
        with BytesMoved() as mode:
            edit_tokens(h, edit)
        return mode.total

    return (moved(512) - moved(256)) / 256


def predict(kind: str, norm: str, gate: str, every_block: bool) -> dict[str, float]:
    """steered / unsteered at each resolution."""
    hooks = SHAPE["num_layers"] if every_block else 1
    ratios = {}
    for name, tokens in TOKENS.items():
        hook = tokens * hook_bytes_per_token(kind, norm, gate) / (GPUS["bandwidth"] * GPUS["bandwidth_efficiency"])
        block = block_flops(tokens) / (GPUS["flops"] * GPUS["flops_efficiency"])
        ratios[name] = round(1 + hooks * hook / (SHAPE["num_layers"] * block), 5)
    return ratios
