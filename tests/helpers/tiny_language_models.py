"""Tiny random language models in the real Hugging Face and GGUF formats: a Llama whose tokens are bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WIDTH, LAYERS = 32, 4
TEMPLATE = "{% for m in messages %}<u>{{ m['content'] }}</u>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


def write_tiny_llama(folder: Path, *, seed: int = 0, padding: str = "right", template: str = TEMPLATE) -> Path:
    """A Llama of `LAYERS` layers, `WIDTH` wide, as `save_pretrained` writes it."""
    tiny_llama(seed).save_pretrained(folder)
    byte_tokenizer(padding, template).save_pretrained(folder)
    return folder


def tiny_llama(seed: int = 0) -> Any:
    """The model itself, in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=264,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=600,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def byte_tokenizer(padding: str = "right", template: str = TEMPLATE) -> Any:
    """A fast tokenizer with the 256 bytes as its words, and no begin token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        padding_side=padding,
        chat_template=template or None,
    )


def write_tiny_gguf(path: Path, *, seed: int = 0) -> Path:
    """The same model as `tiny_llama` in one GGUF file, float32."""
    import gguf

    model, tokenizer = tiny_llama(seed), byte_tokenizer()
    writer = gguf.GGUFWriter(str(path), "llama")
    config = model.config
    writer.add_name("Tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    # readers know a byte-pair vocabulary by its merges, older ones by two or more: some that no text of the tests has
    words += ["qq", "qqq", *(f"<unused{i}>" for i in range(config.vocab_size - len(words) - 2))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3 if word.startswith("<") and len(word) > 1 else 1 for word in words])
    writer.add_token_merges(["q q", "qq q"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        kind = name.split(".")[-2]
        if kind in heads:  # llama.cpp keeps the two halves of a rotary head interleaved
            weight = weight.reshape(heads[kind], 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
