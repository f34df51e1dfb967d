"""The baselines' equations: what each leaves alone, what it removes, and hand-made cases of the formulas."""

from __future__ import annotations

import pytest
import torch
from small_world.measuring.baselines import (
    SLD_PRESETS,
    Sld,
    basis_of,
    casteer,
    guided,
    safree_edit,
    safree_triggers,
    safree_until,
    sld_guidance,
)

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def test_sld_by_hand() -> None:
    prompt, none, concept = torch.tensor([1.0, 1.0, 0.0]), torch.zeros(3), torch.tensor([1.2, 0.0, 0.0005])
    # e_p - e_s = -0.2 (acts, weight 1), 1.0 (above the threshold: left alone), -0.0005 (weight 0.5)
    gamma, momentum = sld_guidance(prompt, none, concept, torch.full((3,), 2.0), Sld(1000.0, 0.01, 0.3, 0.4))
    assert torch.allclose(gamma, torch.tensor([1.2 + 0.6, 0.6, 0.00025 + 0.6]), atol=1e-5)
    assert torch.allclose(momentum, 0.4 * 2.0 + 0.6 * gamma)


def test_sld_without_a_concept_is_plain_guidance() -> None:
    prompt, none = draw(2, 4), draw(2, 4)
    for how in SLD_PRESETS.values():
        gamma, momentum = sld_guidance(prompt, none, none, torch.zeros(2, 4), how)
        assert torch.equal(guided(prompt, none, gamma, 3.0), none + 3.0 * (prompt - none))
        assert not momentum.any()


def test_sld_moves_away_from_the_concept() -> None:
    prompt, none, concept = draw(50), draw(50), draw(50)
    gamma, _ = sld_guidance(prompt, none, concept, torch.zeros(50), SLD_PRESETS["max"])
    change = guided(prompt, none, gamma, 3.0) - guided(prompt, none, 0.0, 3.0)
    assert float(change @ (concept - none)) < 0


def test_sld_momentum_builds_up() -> None:
    prompt, none, concept, momentum = draw(8), draw(8), draw(8), torch.zeros(8)
    gammas = []
    for _ in range(3):
        gamma, momentum = sld_guidance(prompt, none, concept, momentum, SLD_PRESETS["strong"])
        gammas.append(gamma.norm())
    assert gammas[0] < gammas[1] < gammas[2]


def test_basis_spans_the_rows_and_no_more() -> None:
    rows = draw(3, 10)
    basis = basis_of(torch.cat([rows, rows.sum(dim=0, keepdim=True)]))
    assert basis.shape == (3, 10)
    assert torch.allclose(basis @ basis.T, torch.eye(3, dtype=torch.float64))
    assert torch.allclose(rows @ basis.T @ basis, rows)


def prompt_with_a_concept() -> tuple[torch.Tensor, torch.Tensor]:
    """Six tokens of which the third lies in the concepts' span, and a basis of that span."""
    concepts = basis_of(draw(2, 40))
    tokens = 0.3 * draw(6, 40) + draw(40)
    tokens -= tokens @ concepts.T @ concepts
    tokens[2] = 20.0 * concepts.sum(dim=0)
    return tokens, concepts


def test_safree_finds_the_token_that_names_the_concept() -> None:
    tokens, concepts = prompt_with_a_concept()
    assert safree_triggers(tokens, concepts, 0.01).tolist() == [False, False, True, False, False, False]


def test_safree_takes_a_trigger_out_of_the_concepts_and_leaves_the_others() -> None:
    tokens, concepts = prompt_with_a_concept()
    edited = safree_edit(tokens, concepts, 0.01)
    assert torch.allclose(edited[2] @ concepts.T, torch.zeros(2, dtype=torch.float64), atol=1e-9)
    kept = [0, 1, 3, 4, 5]
    assert torch.equal(edited[kept], tokens[kept])


def test_safree_without_a_trigger_returns_the_prompt() -> None:
    tokens, concepts = prompt_with_a_concept()
    assert safree_edit(tokens, concepts, alpha=10.0) is tokens
    assert safree_edit(tokens[:1], concepts, 0.01) is tokens[:1] or torch.equal(
        safree_edit(tokens[:1], concepts, 0.01), tokens[:1]
    )


def test_safree_holds_longer_the_more_it_changed() -> None:
    tokens = draw(5, 20)
    other = draw(5, 20)
    assert safree_until(tokens, tokens, 0.2) == 0.0
    assert safree_until(tokens, -tokens, 0.2) == pytest.approx(0.2)
    middle = 0.5 * tokens + 0.5 * other
    assert 0.0 <= safree_until(tokens, middle, 1.0) <= 1.0
    assert safree_until(tokens, other, 1.0) >= safree_until(tokens, middle, 1.0)


def test_casteer_leaves_tokens_without_the_concept_alone() -> None:
    direction = torch.nn.functional.normalize(draw(16), dim=0)
    h = draw(3, 7, 16)
    h -= (h @ direction).clamp_min(0)[..., None] * direction
    assert torch.allclose(casteer(h, direction, 2.0), h)


def test_casteer_keeps_norms_and_turns_the_concept_away() -> None:
    direction = torch.nn.functional.normalize(draw(16), dim=0)
    h = draw(3, 7, 16) + 2 * direction
    removed, mirrored = casteer(h, direction, 1.0), casteer(h, direction, 2.0)
    had = (h @ direction) > 0
    assert torch.allclose(removed.norm(dim=-1), h.norm(dim=-1))
    assert torch.allclose((removed @ direction)[had], torch.zeros(int(had.sum()), dtype=torch.float64), atol=1e-12)
    assert torch.allclose((mirrored @ direction)[had], -(h @ direction)[had])
