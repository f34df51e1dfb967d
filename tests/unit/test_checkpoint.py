"""`python -m safety_steering inspect CHECKPOINT`: what a header tells. All families are in comfy/test_families.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from safety_steering_pack.bridge.models.checkpoint import inspect_checkpoint, recognise
from safety_steering_pack.bridge.models.families import FAMILIES
from safety_steering_pack.bridge.models.header import read_header
from safety_steering_pack.bridge.models.signatures import SIGNATURES
from safety_steering_pack.commands.main import main
from safety_steering_pack.safety_steering.errors import SafetySteeringError

WAN = {
    "head.modulation": (1, 2, 1536),
    "text_embedding.0.weight": (1536, 4096),
    **{f"blocks.{i}.modulation": (1, 6, 1536) for i in range(30)},
}


def write_header(path, shapes, data=b""):
    """A safetensors file whose tensors are only named: telling what it is must not need their values."""
    entries = {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_the_command_line_describes_a_checkpoint_without_comfyui(tmp_path, repo_root):
    path = write_header(tmp_path / "wan.safetensors", {f"model.diffusion_model.{k}": v for k, v in WAN.items()})
    code = (
        "import sys; sys.argv = ['safety_steering', 'inspect', sys.argv[1]]\n"
        "import runpy\n"
        "try: runpy.run_module('safety_steering', run_name='__main__')\n"
        "except SystemExit as leave: assert not leave.code\n"
        "assert not any(name.partition('.')[0].startswith('comfy') for name in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, path], cwd=repo_root, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "family    wan",
        "model     wan2.1-1.3b",
        "blocks    30 blocks: image (1536 wide)",
        "spaces    conditioning: umt5xxl.last (4096 wide)",
    ]


def spaces(tmp_path, shapes):
    told = inspect_checkpoint(write_header(tmp_path / "model.safetensors", shapes), FAMILIES)
    return [line.removeprefix("spaces    ") for line in told.splitlines() if line.startswith("spaces")]


def test_image_states_are_listed_where_something_reads_them(tmp_path):
    seeing = WAN | {"img_emb.proj.0.weight": (1280,)}
    assert spaces(tmp_path, seeing)[1:] == ["clip_vision: clip-vision-h.penultimate (1280 wide)"]
    assert len(spaces(tmp_path, WAN)) == 1


LTX2 = {
    "audio_adaln_single.linear.weight": (8, 8),
    "patchify_proj.weight": (4096, 128),
    "audio_patchify_proj.weight": (2048, 128),
    "transformer_blocks.0.attn1.to_k.weight": (4096, 4096),
}


def test_spaces_of_a_width_that_is_not_known_are_named_by_it(tmp_path):
    small = WAN | {"text_embedding.0.weight": (1536, 384)}
    assert spaces(tmp_path, small) == ["conditioning: wan.conditioning384 (384 wide)"]
    ltx2 = LTX2 | {"caption_projection.linear_1.weight": (4096, 3840)}
    assert spaces(tmp_path, ltx2) == [
        "conditioning: ltx2.connector.video (3840 wide), ltx2.connector.audio (3840 wide)"
    ]
    tiny = LTX2 | {"caption_projection.linear_1.weight": (32, 24)}
    untold = "(the header does not tell its width)"
    assert spaces(tmp_path, tiny) == [f"conditioning: ltx2.connector.video {untold}, ltx2.connector.audio {untold}"]


def test_the_module_itself_needs_no_torch(repo_root):
    code = (
        "import sys, types\n"
        "sys.modules['torch'] = None\n"
        "package = types.ModuleType('package'); package.__path__ = ['.']\n"
        "sys.modules['package'] = package\n"
        "import package.bridge.models.checkpoint"
    )
    subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True, timeout=60)


def test_every_signature_is_of_a_row_and_only_the_causal_wan_has_none():
    families = {family.name for family in FAMILIES}
    assert families - {signature.family for signature in SIGNATURES} == {"wan-ar"}
    assert {signature.family for signature in SIGNATURES} <= families


def test_a_model_that_is_not_known_is_not_guessed(tmp_path):
    assert recognise({"layers.0.weight": (8, 8)}, FAMILIES) is None
    assert inspect_checkpoint(write_header(tmp_path / "x.safetensors", {"layers.0.weight": (8, 8)}), FAMILIES) == ""


def test_what_is_neither_model_nor_vector_gets_one_sentence(tmp_path, capsys):
    write_header(tmp_path / "lora.safetensors", {"lora_unet_blocks_0.lora_up.weight": (8, 2)})
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "page.safetensors").write_bytes(b"<html>not found</html>")
    for name, said in (
        (
            "lora.safetensors",
            "neither a safety vector nor a known diffusion model; it holds tensors such as",
        ),
        ("model.gguf", "'model.gguf' is a GGUF file, which inspect does not read."),
        ("page.safetensors", "'page.safetensors' is not a complete safetensors file, so it is neither"),
        ("", f"'{tmp_path.name}' is a folder. Name one file in it."),  # with a / at its end, as shells complete it
    ):
        assert main(["inspect", f"{tmp_path}/{name}"]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert said in printed.err
        assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"\xff\xff",
        (100).to_bytes(8, "little") + b'{"a": {"shape": 3}}',
        (7).to_bytes(8, "little") + b'{"a":1}',
        os.urandom(64),
    ],
    ids=range(8),
)
def test_a_damaged_file_is_one_sentence(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(SafetySteeringError, match="is not a safetensors file"):
        read_header(path)


def write_quantised(path, shapes, marks=None, metadata=None):
    """As `write_header`; `shapes` maps names to (dtype, shape), `marks` names to the JSON that a tensor holds."""
    entries = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in shapes.items()
    }
    data = b""
    for name, value in (marks or {}).items():
        text = json.dumps(value).encode()
        offsets = [len(data), len(data) + len(text)]
        entries[name] = {"dtype": "U8", "shape": [len(text)], "data_offsets": offsets}
        data += text
    text = json.dumps({"__metadata__": metadata or {}, **entries}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def wan(dtype="BF16", **changed):
    shapes = {name: (dtype, shape) for name, shape in WAN.items()}
    return shapes | {name.replace("__", "."): value for name, value in changed.items()}


LAYER = "text_embedding.0"
PACKED = ("U8", (1536, 2048))
NVFP4 = {f"{LAYER}.weight": PACKED, f"{LAYER}.weight_scale": ("F8_E4M3", (1536, 256))}
NF4 = {f"{LAYER}.weight": ("U8", (1536 * 2048, 1)), f"{LAYER}.weight.absmax": ("F32", (98304,))}
CONVROT = {f"{LAYER}.weight": ("I8", (1536, 2048)), f"{LAYER}.weight_scale": ("F32", (1536, 64))}


@pytest.mark.parametrize(
    ("shapes", "marks", "metadata", "weights"),
    [
        (NVFP4, {f"{LAYER}.comfy_quant": {"format": "nvfp4"}}, {}, "nvfp4 (1 tensors)"),
        (
            NVFP4,
            {},
            {"_quantization_metadata": json.dumps({"layers": {LAYER: {"format": "nvfp4"}}})},
            "nvfp4 (1 tensors)",
        ),
        (NVFP4 | {f"{LAYER}.weight_scale_2": ("F32", ())}, {}, {}, "nvfp4 (1 tensors)"),
        (
            NF4,
            {f"{LAYER}.weight.quant_state.bitsandbytes__nf4": {"quant_type": "nf4", "shape": [1536, 4096]}},
            {},
            "bitsandbytes nf4 (1 tensors)",
        ),
        (CONVROT, {f"{LAYER}.comfy_quant": {"format": "convrot_w4a4"}}, {}, "convrot_w4a4 (1 tensors)"),
        (
            {f"{LAYER}.weight": ("F8_E4M3", (1536, 4096))},
            {f"{LAYER}.comfy_quant": {"format": "float8_e4m3fn"}},
            {},
            "float8_e4m3fn (1 tensors)",
        ),
        (
            {f"{LAYER}.weight": ("F8_E4M3", (1536, 4096)), "scaled_fp8": ("F8_E4M3", (2,))},
            {},
            {},
            "float8 E4M3 (1 tensors)",
        ),
        (
            {f"{LAYER}.weight": ("I8", (1536, 4096)), f"{LAYER}.weight_scale": ("F32", ())},
            {f"{LAYER}.comfy_quant": {"format": "int8_tensorwise"}},
            {},
            "int8_tensorwise (1 tensors)",
        ),
        (
            {f"{LAYER}.weight": PACKED, f"{LAYER}.weight_scale": ("U8", (1536, 128))},
            {},
            {},
            "mxfp4 (1 tensors)",
        ),
        (
            {f"{LAYER}.weight": ("I8", (1536, 4096)), f"{LAYER}.SCB": ("F32", (1536,))},
            {},
            {},
            "bitsandbytes int8 (1 tensors)",
        ),
        ({f"{LAYER}.weight": ("U8", (1536, 1111))}, {}, {}, "packed in an unknown way (1 tensors)"),
        (
            {f"{LAYER}.weight": PACKED, f"{LAYER}.weight_scale": ("F16", (1536, 64))},
            {},
            {},
            "packed in an unknown way (1 tensors)",
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_quantised_weights_have_the_models_sizes(tmp_path, shapes, marks, metadata, weights, prefix):
    layers = json.loads(metadata.get("_quantization_metadata", "{}")).get("layers", {})
    metadata = {key: json.dumps({"layers": {prefix + n: m for n, m in layers.items()}}) for key in metadata}
    path = write_quantised(
        tmp_path / "model.safetensors",
        {prefix + name: value for name, value in (wan() | shapes).items()},
        {prefix + name: value for name, value in marks.items()},
        metadata,
    )
    assert inspect_checkpoint(path, FAMILIES).splitlines() == [
        "family    wan",
        "model     wan2.1-1.3b",
        "blocks    30 blocks: image (1536 wide)",
        "spaces    conditioning: umt5xxl.last (4096 wide)",
        f"weights   {weights}",
    ]


@pytest.mark.parametrize("mark", [b"[]", b"{", b'{"shape": "x"}', b'{"shape": [null]}', b"x" * 70_000])
def test_a_damaged_mark_is_one_sentence(tmp_path, mark):
    name = f"{LAYER}.weight.quant_state.bitsandbytes__nf4"
    entry = {"dtype": "U8", "shape": [len(mark)], "data_offsets": [0, len(mark)]}
    shapes = {f"{LAYER}.weight": {"dtype": "U8", "shape": [8, 1], "data_offsets": [0, 8]}, name: entry}
    text = json.dumps(shapes).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + mark)
    with pytest.raises(SafetySteeringError, match="is not a safetensors file"):
        read_header(path)


@pytest.mark.parametrize(
    "name",
    [
        "model-{:05}-of-00002.fp16.safetensors",
        "model.fp16-{:05}-of-00002.safetensors",
        "model_{}_of_2.safetensors",
        "Model-{:04}-OF-0002.safetensors",
    ],
)
def test_a_shard_is_told_however_it_is_named(tmp_path, name):
    """One of these was taken for a whole model."""
    parts = [dict(list(WAN.items())[i::2]) for i in range(2)]
    files = [write_header(tmp_path / name.format(i), part) for i, part in enumerate(parts, 1)]
    told = inspect_checkpoint(files[1], FAMILIES).splitlines()
    assert told[-1] == "shard     2 of 2; described with the others, which are beside it"
    assert inspect_checkpoint(write_header(tmp_path / "one_of_2_kinds.safetensors", WAN), FAMILIES).count("shard") == 0


def test_a_shard_is_described_with_the_others_and_says_which_it_is(tmp_path, capsys):
    parts = [dict(list(WAN.items())[i::3]) for i in range(3)]
    files = [write_header(tmp_path / f"wan-0000{i}-of-00003.safetensors", part) for i, part in enumerate(parts, 1)]
    told = inspect_checkpoint(files[1], FAMILIES).splitlines()
    assert told[2] == "blocks    30 blocks: image (1536 wide)"
    assert told[-1] == "shard     2 of 3; described with the others, which are beside it"
    files[0].unlink()
    assert main(["inspect", str(files[1])]) == 1
    assert "is shard 2 of 3 of a model. Put all its shards into one folder" in capsys.readouterr().err
    write_header(files[1], WAN)
    told = inspect_checkpoint(files[1], FAMILIES).splitlines()
    assert told[-1] == "shard     2 of 3; not here: 1. Blocks are counted over what is here"
    whole = write_header(tmp_path / "wan-00001-of-00001.safetensors", WAN)
    assert "shard" not in inspect_checkpoint(whole, FAMILIES)
