"""A language model from files: its states are transformers' own, and nothing but local, inert files is read."""

from __future__ import annotations

import json
import socket

import pytest
import torch
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.language_models.source_model import token_fraction
from safety_steering_pack.safety_steering.language_models.transformers_model import LanguageModel
from tiny_language_models import LAYERS, WIDTH, byte_tokenizer, tiny_llama, write_tiny_gguf, write_tiny_llama

TEXTS = ("a dog runs", "a very long sentence about a hill and a house", "x", "", "ein Zug fährt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_llama(tmp_path_factory.mktemp("llms") / "Tiny Llama_1.0")


@pytest.fixture(scope="module")
def hidden():
    """Every hidden state (layers + 1, tokens, D) of a text, as transformers itself gives them, without any padding."""
    model, tokenizer = tiny_llama(), byte_tokenizer()
    last = {}
    model.model.norm.register_forward_pre_hook(lambda module, args: last.update(states=args[0][0]))

    def states(text: str) -> torch.Tensor:
        with torch.no_grad():
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            found = model(ids, output_hidden_states=True).hidden_states
        return torch.stack([*(state[0] for state in found[:-1]), last["states"]])  # the last one before its norm

    return states


def test_its_facts_are_read_without_its_weights(folder):
    model = LanguageModel(folder)
    assert (model.name, model.layers, model.width) == ("tiny-llama_1.0", LAYERS, WIDTH)
    assert model.space(3) == "tiny-llama_1.0/source.3"
    assert model.poolings == ("mean", "last", "chat")
    assert model.parameters == sum(weight.numel() for weight in tiny_llama().model.parameters())
    assert not model.loaded


def test_states_are_the_models_own_at_every_layer(folder, hidden):
    every = list(range(LAYERS + 1))
    model = LanguageModel(folder)
    for pooling, wanted in {
        "mean": lambda text: hidden(text)[:, 1:].mean(dim=1),
        "last": lambda text: hidden(text)[:, -1],
        "chat": lambda text: hidden(f"<u>{text}</u><a>")[:, -1],
        "token": lambda text: hidden(text)[:, 1 + int(token_fraction(text) * (len(text.encode()) - 1))],
    }.items():
        texts = [text for text in TEXTS if len(text) > 1]
        found = model.states(texts, every, pooling)
        assert found.shape == (len(texts), LAYERS + 1, WIDTH)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, torch.stack([wanted(text) for text in texts]), rtol=1e-4, atol=1e-5)


def test_neither_the_batch_nor_the_side_of_the_padding_matters(folder, tmp_path):
    left = write_tiny_llama(tmp_path / "left", padding="left")
    alone = LanguageModel(folder, batch=1).states(TEXTS, [1, 4])
    assert bool(alone.isfinite().all())
    for path in (folder, left):
        model = LanguageModel(path, batch=3)
        assert model.tokenizer.padding_side == ("left" if path == left else "right")
        torch.testing.assert_close(model.states(TEXTS, [1, 4]), alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.states(TEXTS[::-1], [4, 1]), alone.flip(0, 1), rtol=1e-4, atol=1e-5)


def test_in_double_precision_results_hold_to_the_last_bit_of_half_precision(folder):
    one, other = (LanguageModel(folder, dtype="float64", batch=batch).states(TEXTS, [3]) for batch in (1, 4))
    assert torch.equal(one.half(), other.half())


def test_it_is_in_memory_only_while_it_is_read(folder):
    model = LanguageModel(folder)
    with model.open(), model.open():
        model.states(["a"], [0])
        assert model.loaded
    assert not model.loaded
    model.states(["a"], [0])
    assert not model.loaded
    with pytest.raises(KeyboardInterrupt), model.open():
        model.states(TEXTS, [0], progress=_interrupt)
    assert not model.loaded


def _interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt


def test_progress_counts_every_text(folder):
    seen = []
    LanguageModel(folder, batch=2).states(TEXTS, [1], progress=lambda *step: seen.append(step))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_no_network_is_touched_and_no_code_of_the_folder_runs(folder, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    LanguageModel(folder).states(["a"], [1])
    hostile = write_tiny_llama(tmp_path / "hostile")
    config = json.loads((hostile / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (hostile / "config.json").write_text(json.dumps(config))
    (hostile / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(SafetySteeringError, match=r"^hostile cannot be read as a language model"):
        LanguageModel(hostile).states(["a"], [1])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("saved", "here", "refused"),
    [("5.24.0", "4.50.3", True), ("5.0.0.dev0", "4.57.1", True), ("4.57.1", "5.24.0", False), (None, "4.50.3", False)],
)
def test_what_a_later_transformers_has_saved_is_refused(tmp_path, monkeypatch, saved, here, refused):
    """Version 4 cannot read its tokenizer, and takes a default for its rotary base without a word."""
    path = write_tiny_llama(tmp_path / "newer")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"transformers_version": saved}))
    monkeypatch.setattr(f"{LanguageModel.__module__.rpartition('.')[0]}.model_files.version", lambda name: here)
    if refused:
        words = rf"newer was saved by transformers {saved}, which {here} does not read rightly. Update it"
        with pytest.raises(SafetySteeringError, match=words):
            LanguageModel(path)
    else:
        assert LanguageModel(path).layers == LAYERS


def test_missing_files_are_named(folder, tmp_path):
    copy = write_tiny_llama(tmp_path / "copy")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        content = (copy / name).read_bytes()
        (copy / name).unlink()
        with pytest.raises(SafetySteeringError, match=f"The folder copy lacks .*{name}"):
            LanguageModel(copy)
        (copy / name).write_bytes(content)
    (copy / "pytorch_model.bin").write_bytes((copy / "model.safetensors").read_bytes())
    (copy / "model.safetensors").unlink()
    with pytest.raises(SafetySteeringError, match="weights must be safetensors"):
        LanguageModel(copy)
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    with pytest.raises(SafetySteeringError, match=r"lacks model-1.safetensors, model-2.safetensors"):
        LanguageModel(copy)
    index.write_text(json.dumps({"weight_map": {"a": "../other/model.safetensors"}}))
    with pytest.raises(SafetySteeringError, match="names files outside of its folder"):
        LanguageModel(copy)
    index.write_text("[]")
    with pytest.raises(SafetySteeringError, match=r"index.json cannot be read"):
        LanguageModel(copy)
    with pytest.raises(SafetySteeringError, match="There is no model 'nowhere'"):
        LanguageModel(tmp_path / "nowhere")
    with pytest.raises(SafetySteeringError, match=r"There is no file nowhere.gguf"):
        LanguageModel(tmp_path / "nowhere.gguf")


def test_damaged_and_partial_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    copy = write_tiny_llama(tmp_path / "copy")
    path = copy / "model.safetensors"
    weights = load_file(path)
    save_file({name: weight for name, weight in weights.items() if "layers.2.mlp" not in name}, path, {"format": "pt"})
    with pytest.raises(SafetySteeringError, match=r"copy lacks 3 of its tensors, the first is .*layers.2.mlp"):
        LanguageModel(copy).states(["a"], [1])
    save_file({name: weight * 1e30 for name, weight in weights.items()}, path, {"format": "pt"})
    with pytest.raises(SafetySteeringError, match=r"not finite in torch.float16. Use float32 or bfloat16"):
        LanguageModel(copy, dtype="float16").states(["a b"], [LAYERS])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SafetySteeringError, match=r"^copy cannot be read as a language model"):
        LanguageModel(copy).states(["a"], [1])


def test_bad_requests_get_one_sentence(folder, tmp_path):
    model = LanguageModel(folder)
    for layers, pooling, words in (
        ([5], "mean", r"has the layers 0 \(embeddings\) to 4, and no layer 5"),
        ([-1], "mean", "no layer -1"),
        ([], "mean", "no texts or no layers"),
        ([1], "median", "cannot pool by 'median', only by mean, last, chat"),
    ):
        with pytest.raises(SafetySteeringError, match=words):
            model.states(["a"], layers, pooling)
    bare = LanguageModel(write_tiny_llama(tmp_path / "bare", template=""))
    assert bare.poolings == ("mean", "last")
    with pytest.raises(SafetySteeringError, match="It has no chat template"):
        bare.states(["a"], [1], "chat")
    for options, words in (({"dtype": "int8"}, "The dtype is 'int8'"), ({"batch": 0}, "The batch size is 0")):
        with pytest.raises(SafetySteeringError, match=words):
            LanguageModel(folder, **options)


def test_a_gguf_file_gives_the_same_states(folder, tmp_path):
    pytest.importorskip("gguf")
    model = LanguageModel(write_tiny_gguf(tmp_path / "Tiny.F32.gguf"))
    assert (model.name, model.layers, model.width) == ("tiny.f32", LAYERS, WIDTH)
    found = model.states(["a dog runs", "ein Zug"], [0, 2, 4])
    same = LanguageModel(folder)
    if model.tokenizer("a")["input_ids"] != same.tokenizer("a")["input_ids"]:
        # before 4.56, transformers puts a begin token before texts of GGUF files that ask for none
        same.tokenizer = model.tokenizer
    torch.testing.assert_close(found, same.states(["a dog runs", "ein Zug"], [0, 2, 4]), rtol=1e-4, atol=1e-5)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(SafetySteeringError, match=r"^broken.gguf cannot be read as a language model"):
        LanguageModel(tmp_path / "broken.gguf").states(["a"], [0])


def test_an_encoder_decoder_is_refused(folder, tmp_path):
    copy = write_tiny_llama(tmp_path / "copy")
    (copy / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 8, "num_layers": 1}))
    with pytest.raises(SafetySteeringError, match=r"is an encoder-decoder .t5.. Load it as a text encoder"):
        LanguageModel(copy).states(["a"], [1])
