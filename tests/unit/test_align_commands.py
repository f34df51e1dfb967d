"""`align` and `transfer` on the command line: from a portable vector and states on disk to a vector file."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from portable import World, anchor_texts
from safetensors.torch import save_file
from safety_steering_pack.commands.main import main
from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Activations, Row, Source, States
from safety_steering_pack.safety_steering.alignment.file import load_alignment
from safety_steering_pack.safety_steering.alignment.transfer import fit_step
from safety_steering_pack.safety_steering.vectors.file import load_vector, save_vector

PLACE = "block.blocks.1.image"


@pytest.fixture
def world(tmp_path):
    made = World()
    facts = made.facts(120)
    save_vector(made.vector(facts=facts), tmp_path / "portable.safetensors")
    return made, facts


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_from_a_file_of_states(world, tmp_path, capsys):
    made, facts = world
    states = made.target(facts)
    vector, file = tmp_path / "portable.safetensors", tmp_path / "states.safetensors"
    alignment, out = tmp_path / "a.safetensors", tmp_path / "v.safetensors"
    save_file({"activations": states, "token": states + 1}, file)
    code, printed = run(capsys, "align", vector, file, alignment)
    assert code == 1
    assert "--hook-point" in printed
    place = ("--hook-point", "conditioning", "--space", "umt5xxl.last")
    code, printed = run(capsys, "align", vector, file, alignment, *place, "--method", "reduced_rank")
    assert code == 0, printed
    assert "retrieval@1" in printed
    assert run(capsys, "align", vector, file, alignment, *place)[0] == 1  # it is there already
    code, printed = run(capsys, "transfer", vector, alignment, out)
    assert code == 0, printed
    carried = load_vector(out)
    assert carried.at("conditioning").space == "umt5xxl.last"
    assert fit_step(carried)["alignment_sha256"] == load_alignment(alignment).sha256
    assert load_alignment(alignment).settings.method == "reduced_rank"


def test_rows_are_told_by_their_texts(world, tmp_path, capsys):
    made, facts = world
    order = torch.randperm(120, generator=torch.Generator().manual_seed(3))[:90]
    texts = [anchor_texts(120)[i] for i in order.tolist()]
    about = {"texts": json.dumps(texts), "hook_point": "conditioning", "space": "umt5xxl.last"}
    save_file({"activations": made.target(facts)[order]}, tmp_path / "some.safetensors", about)
    code, printed = run(
        capsys, "align", tmp_path / "portable.safetensors", tmp_path / "some.safetensors", tmp_path / "a.safetensors"
    )
    assert code == 0, printed
    found = load_alignment(tmp_path / "a.safetensors")
    assert found.anchors == 90
    assert found.quality.retrieval > 0.9


def test_from_a_folder_of_activations_without_its_unsafe_rows(world, tmp_path, capsys):
    made, facts = world
    source = Source(
        {PLACE: ("tiny/" + PLACE, 40), "conditioning": ("umt5xxl.last", 40)}, (0.0, 0.5, 1.0), "wan", "tiny"
    )
    folder = Activations.create(tmp_path / "captured", source)
    texts = anchor_texts(120)
    rows = [
        Row(f"r{i}/{side}/{hashlib.sha256(text.encode()).hexdigest()[:8]}", side, "x")
        for i, text in enumerate(texts)
        for side in (UNSAFE, SAFE)
    ]
    clean = made.target(facts)
    both = (
        torch.stack([torch.full_like(clean, 1e6), clean], dim=1).flatten(0, 1)[:, None].expand(-1, 2, -1).contiguous()
    )
    folder.append(rows, {name: States(both, both) for name in source.hook_points})
    arguments = ("align", tmp_path / "portable.safetensors", tmp_path / "captured", tmp_path / "a.safetensors")
    code, printed = run(capsys, *arguments)
    assert code == 1
    assert "holds 2 hook points" in printed
    code, printed = run(capsys, *arguments, "--hook-point", PLACE)
    assert code == 0, printed
    found = load_alignment(tmp_path / "a.safetensors")
    assert (found.anchors, found.target.space, found.target.family) == (120, f"tiny/{PLACE}", "wan")
    assert float(found.target_anchors.pooled.abs().max()) < 1e5


def test_what_is_no_portable_vector_or_no_states_is_said(world, tmp_path, capsys):
    made, facts = world
    bare = load_vector(tmp_path / "portable.safetensors")
    save_vector(type(bare)(bare.hook_points, bare.info), tmp_path / "bare.safetensors")
    save_file({"other": made.target(facts)}, tmp_path / "other.safetensors")
    save_file({"activations": made.target(facts)[:5]}, tmp_path / "few.safetensors")
    for vector, states, message in (
        ("bare", "few", "not a portable vector with anchors"),
        ("portable", "other", "not a file of anchor states"),
        ("portable", "few", "for 120 anchors"),
        ("portable", "missing", "was not found. Give a file of anchor states"),
    ):
        files = [tmp_path / f"{name}.safetensors" for name in (vector, states, "a")]
        code, printed = run(capsys, "align", *files, "--hook-point", "conditioning", "--space", "s")
        assert code == 1
        assert message in printed
        assert "Traceback" not in printed
