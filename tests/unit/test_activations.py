"""The activation folder: append-only, resumable, refusing what does not belong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safety_steering_pack.safety_steering.activations import SAFE, UNSAFE, Activations, Row, Source, States, joined
from safety_steering_pack.safety_steering.errors import SafetySteeringError

SOURCE = Source({"conditioning": ("umt5xxl.last", 6), "block.blocks.1.image": ("m/b", 4)}, (0.0, 0.5, 1.0))


def states(count: int, seed: int) -> dict[str, States]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: States(*(torch.randn(count, 2, width, generator=generator) for _ in range(2)))
        for name, (_, width) in SOURCE.hook_points.items()
    }


def rows(count: int, start: int) -> list[Row]:
    return [Row(f"id{start + i}", (SAFE, UNSAFE)[i % 2], "gore", f"pair{i // 2}", "train") for i in range(count)]


def test_what_is_appended_is_read_back_bit_exactly_and_in_order(tmp_path):
    folder = Activations.create(tmp_path / "a", SOURCE)
    first, second = states(3, 1), states(2, 2)
    folder.append(rows(3, 0), first)
    folder.append(rows(2, 3), second)
    again = Activations.open(tmp_path / "a")
    assert again.source == SOURCE
    assert again.rows() == rows(3, 0) + rows(2, 3)
    for name in SOURCE.hook_points:
        for kind in ("pooled", "token"):
            expected = torch.cat([getattr(first[name], kind), getattr(second[name], kind)])
            assert torch.equal(getattr(again.read(name), kind), expected)


def test_create_resumes_the_same_source_and_refuses_another(tmp_path):
    Activations.create(tmp_path / "a", SOURCE).append(rows(2, 0), states(2, 1))
    assert len(Activations.create(tmp_path / "a", SOURCE).rows()) == 2
    with pytest.raises(SafetySteeringError, match="other settings"):
        Activations.create(tmp_path / "a", Source(SOURCE.hook_points, (0.0, 1.0)))


def test_wrong_shapes_write_nothing(tmp_path):
    folder = Activations.create(tmp_path / "a", SOURCE)
    with pytest.raises(SafetySteeringError, match=r"expected \(3, 2, 6\)"):
        folder.append(rows(3, 0), states(2, 1))
    assert folder.rows() == []


@pytest.mark.parametrize("text", ["", "{}", '{"format": "other", "format_version": 1}', "[1]"])
def test_a_folder_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(SafetySteeringError, match="not a folder of safety activations"):
        Activations.open(tmp_path)


def test_a_hook_point_that_was_not_captured_is_named(tmp_path):
    folder = Activations.create(tmp_path / "a", SOURCE)
    with pytest.raises(SafetySteeringError, match=r"Nothing was captured at block\.blocks\.7\.image"):
        folder.read("block.blocks.7.image")


def with_tokens(count: int, seed: int, most: int) -> dict[str, States]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: replace(one, tokens=torch.randn(count, 2, most, one.pooled.shape[2], generator=generator).bfloat16())
        for name, one in states(count, seed).items()
    }


def test_token_states_are_read_back_if_asked_for_the_shorter_ones_filled_up(tmp_path):
    folder = Activations.create(tmp_path / "a", SOURCE)
    first, second = with_tokens(3, 1, 4), with_tokens(2, 2, 7)
    folder.append(rows(3, 0), first)
    folder.append(rows(2, 3), second)
    for name in SOURCE.hook_points:
        assert folder.read(name).tokens is None
        found = folder.read(name, tokens=True).tokens
        assert found.dtype == torch.bfloat16
        assert torch.equal(found[:3, :, :4], first[name].tokens)
        assert found[:3, :, 4:].isnan().all()
        assert torch.equal(found[3:], second[name].tokens)
    assert folder.bytes_on_disk == sum(path.stat().st_size for path in folder.folder.glob("shard-*"))


def test_a_folder_of_version_1_is_read_and_resumed(tmp_path):
    folder = Activations.create(tmp_path / "a", SOURCE)
    folder.append(rows(3, 0), states(3, 1))
    manifest = folder.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 2', '"format_version": 1'))
    again = Activations.create(folder.folder, SOURCE)
    again.append(rows(2, 3), with_tokens(2, 2, 7))
    found = again.read("conditioning", tokens=True)
    assert found.pooled.shape == (5, 2, 6)
    assert found.tokens is None


def test_joined_states_are_as_long_as_the_longest():
    parts = [with_tokens(2, 1, 3)["conditioning"], with_tokens(1, 2, 5)["conditioning"]]
    whole = joined(parts)
    assert whole.tokens.shape == (3, 2, 5, 6)
    assert whole.tokens[:2, :, 3:].isnan().all()
    assert torch.equal(whole.pooled, torch.cat([part.pooled for part in parts]))
    assert joined([parts[0], replace(parts[1], tokens=None)]).tokens is None


def test_tokens_of_a_wrong_shape_write_nothing(tmp_path):
    folder = Activations.create(tmp_path / "a", SOURCE)
    wrong = {name: replace(one, tokens=one.tokens[:, :1]) for name, one in with_tokens(2, 1, 3).items()}
    with pytest.raises(SafetySteeringError, match="tokens has shape"):
        folder.append(rows(2, 0), wrong)
    assert folder.rows() == []
