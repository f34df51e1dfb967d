"""`python -m safety_steering inspect CHECKPOINT`: what a header tells. All families are in comfy/test_families.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from safety_steering_pack.bridge.models.checkpoint import inspect_checkpoint, read_shapes, recognise
from safety_steering_pack.bridge.models.families import FAMILIES
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
        read_shapes(path)
