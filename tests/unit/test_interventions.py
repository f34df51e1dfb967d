"""What each intervention, norm and gate promises, as properties over random hidden states, in float64 to 1e-12."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.steering.interventions import (
    GATES,
    INTERVENTIONS,
    NORMS,
    RIDGE,
    Intervention,
    Targets,
    intervene,
    project,
    stack_targets,
)
from safety_steering_pack.safety_steering.vectors.vector import Direction, HookPointDirections

properties = settings(max_examples=60, deadline=None)  # no deadline: the machine may be busy


RELATIVE = 1e-12
NONE = Intervention("add", "none")
OF_STATES = [gate for gate in GATES if gate != "prompt"]  # that one is decided elsewhere: test_prompt_gate.py


@dataclass(frozen=True, eq=False)
class Case:
    """Random hidden states (B, N, D) with an editable mask, and categories to steer them by."""

    h: torch.Tensor
    mask: torch.Tensor | None
    point: HookPointDirections
    strength: float

    def targets(self, **mix: float) -> Targets:
        return stack_targets(self.point, mix or dict.fromkeys(self.point.categories, 1.0), 0)

    @property
    def editable(self) -> torch.Tensor:
        every = torch.ones(*self.h.shape[:2], 1, dtype=torch.bool)
        return every if self.mask is None else self.mask.expand_as(every)


def directions(rows: torch.Tensor, gap: float = 3.0, center: float = 0.5) -> HookPointDirections:
    """Categories c0, c1, ... with these directions (C, D)."""
    one = torch.ones(1)
    unit = (rows.double() / rows.double().norm(dim=1, keepdim=True)).float()
    categories = {
        f"c{i}": Direction(unit[i : i + 1], (gap + i) * one, (center - i) * one, 0.7 * one, 1.3 * one)
        for i in range(len(rows))
    }
    return HookPointDirections("tests", torch.tensor([0.0, 1.0]), one, categories)


@st.composite
def cases(draw: st.DrawFn, categories: int = 1, dtype: torch.dtype = torch.float64) -> Case:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, tokens, width = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(max(2, categories), 24))

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    h = 10.0 ** draw(st.integers(-2, 2)) * random(batch, tokens, width)
    if draw(st.booleans()):
        h[:, 0] = 0  # a padded row
    masks = st.sampled_from([None, (batch, tokens, 1), (1, tokens, 1)])
    shape = draw(masks)
    return Case(
        h=h.to(dtype),
        mask=None if shape is None else random(*shape) > 0,
        point=directions(random(categories, width)),
        strength=draw(st.floats(-8, 8).filter(lambda x: x == 0 or abs(x) > 1e-3)),
    )


def assert_close(actual: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor | float = 0.0) -> None:
    """Equal to 1e-12 of the larger of `expected`'s and `scale`'s greatest value."""
    size = max(expected.abs().max().item(), torch.as_tensor(scale).abs().max().item(), 1e-300)
    assert (actual - expected).abs().max().item() <= RELATIVE * size


@properties
@given(cases(categories=2))
def test_add_moves_every_editable_token_by_the_weighted_gaps(case):
    targets = case.targets(c0=1.0, c1=-0.5)
    steered, _ = intervene(case.h, targets, NONE, case.strength, case.mask)
    move = case.strength * (3.0 * targets.directions[0] - 0.5 * 4.0 * targets.directions[1])
    assert_close(steered - case.h, case.editable * move, scale=case.h)


@properties
@given(cases(categories=3), st.floats(-3, 3), st.floats(-3, 3))
def test_mixing_is_linear_for_add(case, a, b):
    def change(**mix: float) -> torch.Tensor:
        mix = {name: weight for name, weight in mix.items() if weight != 0}
        if not mix:
            return torch.zeros_like(case.h)
        return intervene(case.h, case.targets(**mix), NONE, case.strength, case.mask)[0] - case.h

    together = change(c0=a, c1=b, c2=1.0)
    apart = a * change(c0=1.0) + b * change(c1=1.0) + change(c2=1.0)
    assert_close(together, apart, scale=10 * case.h + 100 * abs(case.strength))


@properties
@given(cases())
def test_ablate_leaves_the_orthogonal_part_and_sets_the_projection_to_the_center(case):
    targets = case.targets()
    steered, _ = intervene(case.h, targets, Intervention("ablate", "none"), 1.0, case.mask)

    def orthogonal(x: torch.Tensor) -> torch.Tensor:
        return x - project(x, targets) @ targets.directions

    assert_close(orthogonal(steered), orthogonal(case.h), scale=case.h.abs().max() + 1)
    assert_close(project(steered, targets), torch.where(case.editable, 0.5, project(case.h, targets)), scale=case.h)


@properties
@given(cases(), st.floats(1, 8))
def test_clamp_never_ends_below_its_level_and_leaves_alone_what_is_above(case, strength):
    targets = case.targets()
    steered, _ = intervene(case.h, targets, Intervention("clamp", "none"), strength, case.mask)
    before, after = project(case.h, targets), project(steered, targets)
    slack = RELATIVE * max(1.0, case.h.abs().max().item() * strength)
    assert (after >= 0.5 - slack)[case.editable].all()
    safe = (before >= 0.5)[..., 0]
    assert torch.equal(steered[safe], case.h[safe])


@properties
@given(cases(categories=2), st.sampled_from(INTERVENTIONS), st.sampled_from(OF_STATES))
def test_token_norm_keeps_each_editable_tokens_norm(case, kind, gate):
    how = Intervention(kind, "token", gate, 0.3)
    steered, _ = intervene(case.h, case.targets(), how, case.strength, case.mask)
    assert_close(steered.norm(dim=-1), case.h.norm(dim=-1))


@properties
@given(cases(categories=2), st.sampled_from(INTERVENTIONS), st.sampled_from(OF_STATES))
def test_channel_norm_keeps_each_channels_norm_over_a_samples_editable_tokens(case, kind, gate):
    how = Intervention(kind, "channel", gate, 0.3)
    steered, _ = intervene(case.h, case.targets(), how, case.strength, case.mask)
    before, after = (x.masked_fill(~case.editable, 0).norm(dim=1) for x in (case.h, steered))
    assert_close(after, before)


@properties
@given(
    cases(categories=2), st.sampled_from(INTERVENTIONS), st.sampled_from(NORMS), st.sampled_from(["pooled", "token"])
)
def test_a_gate_at_minus_infinity_never_acts_and_at_plus_infinity_always(case, kind, norm, gate):
    never, effect = intervene(
        case.h, case.targets(), Intervention(kind, norm, gate, -math.inf), case.strength, case.mask
    )
    assert_close(never, case.h)
    assert not effect.acted.any()
    gated = Intervention(kind, norm, gate, math.inf)
    always, effect = intervene(case.h, case.targets(), gated, case.strength, case.mask)
    ungated, _ = intervene(case.h, case.targets(), Intervention(kind, norm), case.strength, case.mask)
    assert torch.equal(always, ungated)
    assert torch.equal(effect.acted, (effect.editable > 0).double())


@pytest.mark.parametrize("gate", ["pooled", "token"])
def test_an_infinite_threshold_means_the_same_where_the_benign_deviation_is_zero(gate):
    point = directions(torch.eye(2)[:1])
    still = point.categories["c0"]
    still = Direction(still.direction, still.gap, still.center, 0 * still.gap, 0 * still.gap)
    targets = stack_targets(
        HookPointDirections("tests", point.sigma_edges, point.token_norm, {"c0": still}), {"c0": 1}, 0
    )
    h = torch.tensor([[[-2.0, 0.0], [3.0, 0.0]]]).double()
    assert intervene(h, targets, Intervention("add", "none", gate, math.inf), 1.0)[1].acted == 1
    assert intervene(h, targets, Intervention("add", "none", gate, -math.inf), 1.0)[1].acted == 0


def test_the_pooled_gate_decides_for_a_whole_sample_and_the_token_gate_for_each_token():
    targets = stack_targets(directions(torch.eye(2)[:1], center=0.0), {"c0": 1}, 0)
    # sample 0: mean -1 of its editable tokens (the masked one would pull it up to 2); sample 1: mean +1
    h = torch.tensor([[[-4.0, 1], [2.0, 1], [8.0, 1]], [[-2.0, 1], [4.0, 1], [1.0, 1]]]).double()
    mask = torch.tensor([[True, True, False], [True, True, True]])[..., None]
    for gate, expected in (
        ("pooled", [[True, True, False], [False, False, False]]),
        ("token", [[True, False, False], [True, False, False]]),
    ):
        steered, effect = intervene(h, targets, Intervention("add", "none", gate, -1.0), 1.0, mask)
        assert (steered != h).any(dim=-1).tolist() == expected
        assert effect.acted.tolist() == pytest.approx(
            [sum(expected[0]) / 2, sum(expected[1]) / 3]
        )  # shares of the editable tokens


@properties
@given(cases(), st.sampled_from(["ablate", "clamp"]))
def test_the_joint_solve_with_one_category_is_the_closed_form(case, kind):
    targets = case.targets(c0=0.8)
    steered, _ = intervene(case.h, targets, Intervention(kind, "none"), case.strength, case.mask)
    u = targets.directions[0]
    deficit = 0.5 - case.h @ u
    deficit = deficit.clamp_min(0) if kind == "clamp" else deficit
    expected = case.h + case.editable * (case.strength * 0.8 * deficit[..., None] * u)
    assert_close(steered, expected, scale=case.h.abs().max() * (1 + abs(case.strength)))


@properties
@given(cases(categories=2), st.sampled_from(["ablate", "clamp"]))
def test_orthogonal_categories_are_corrected_as_if_each_were_alone(case, kind):
    axes = torch.eye(case.h.shape[-1])[:2]
    case = Case(case.h, case.mask, directions(axes), case.strength)

    def change(**mix: float) -> torch.Tensor:
        steered, _ = intervene(case.h, case.targets(**mix), Intervention(kind, "none"), case.strength, case.mask)
        return steered - case.h

    scale = case.h.abs().max() * (1 + abs(case.strength))
    assert_close(change(c0=1.0, c1=0.5), change(c0=1.0) + change(c1=0.5), scale=scale)


@properties
@given(cases(), st.sampled_from(["ablate", "clamp"]))
def test_what_two_categories_share_is_corrected_once_up_to_the_documented_ridge(case, kind):
    only = case.point.categories["c0"]
    twins = HookPointDirections("tests", case.point.sigma_edges, case.point.token_norm, {"c0": only, "c1": only})

    def change(point: HookPointDirections, **mix: float) -> torch.Tensor:
        steered, _ = intervene(
            case.h, stack_targets(point, mix, 0), Intervention(kind, "none"), case.strength, case.mask
        )
        return steered - case.h

    once = change(case.point, c0=1.0)
    twice = change(twins, c0=1.0, c1=1.0)
    scale = case.h.abs().max() * (1 + abs(case.strength))
    assert_close(twice, once * 2 * (1 + RIDGE) / (2 + RIDGE), scale=scale)
    assert 1 <= 2 * (1 + RIDGE) / (2 + RIDGE) < 1 + RIDGE


@properties
@given(st.integers(2, 12), st.integers(0, 2**31))
def test_nearly_parallel_categories_stay_bounded(categories, seed):
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(1, 16, generator=generator)
    point = directions(shared + 1e-4 * torch.randn(categories, 16, generator=generator), center=0.0)
    targets = stack_targets(point, dict.fromkeys(point.categories, 1.0), 0)
    # overlaps of at most 1 / (1 + RIDGE) bound the inverse by (1 + RIDGE) / RIDGE
    assert torch.linalg.matrix_norm(targets.solve, 2) <= (1 + RIDGE) / RIDGE * (1 + 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@properties
@given(data=st.data())
def test_masked_tokens_are_bit_equal_in_every_dtype(dtype, data):
    case = data.draw(cases(categories=2, dtype=dtype))
    how = Intervention(*(data.draw(st.sampled_from(names)) for names in (INTERVENTIONS, NORMS, OF_STATES)), 0.5)
    steered, _ = intervene(case.h, case.targets().to("cpu", torch.float32), how, case.strength, case.mask)
    assert steered.dtype == dtype
    untouched = ~case.editable[..., 0]
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(steered[untouched].view(bits), case.h[untouched].view(bits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@properties
@given(data=st.data())
def test_a_steered_token_is_the_float64_result_rounded_once(dtype, data):
    case = data.draw(cases(categories=2, dtype=dtype))
    kind, norm = data.draw(st.sampled_from(INTERVENTIONS)), data.draw(st.sampled_from(("none", "token")))
    how = Intervention(kind, norm)
    steered, _ = intervene(case.h, case.targets().to("cpu", torch.float32), how, case.strength, case.mask)
    exact, _ = intervene(case.h.double(), case.targets(), how, case.strength, case.mask)
    # the arithmetic is float32, so its own error is in the size of what is added, not of the result
    size = case.h.double().abs().amax(dim=-1, keepdim=True) + 10 * abs(case.strength) * (
        1 + case.h.double().abs().max()
    )
    rounding = torch.finfo(dtype).eps * exact.abs() + torch.finfo(torch.float32).eps * 64 * size
    rounding += torch.finfo(dtype).tiny
    assert ((steered.double() - exact).abs() <= rounding).all()


@properties
@given(cases(categories=2), st.sampled_from(INTERVENTIONS), st.sampled_from(NORMS), st.sampled_from(OF_STATES))
def test_strength_0_leaves_the_values_equal(case, kind, norm, gate):
    steered, effect = intervene(case.h, case.targets(), Intervention(kind, norm, gate), 0.0, case.mask)
    assert_close(steered, case.h)
    assert effect.shift.abs().max() <= 1e-7  # a length computed from squares: the root of 1e-16


@pytest.mark.parametrize("kind", INTERVENTIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_training_goes_through_a_steered_state(kind, norm):
    """Gradients are those of finite differences, and the values those without gradients."""
    generator = torch.Generator().manual_seed(0)
    targets = stack_targets(directions(torch.randn(2, 4, generator=generator)), {"c0": 1.0, "c1": 0.5}, 0)
    h = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
    plain, _ = intervene(h, targets, Intervention(kind, norm), 0.7)
    h.requires_grad_()
    steered, effect = intervene(h, targets, Intervention(kind, norm), 0.7)
    assert torch.equal(steered, plain)
    assert not any(value.requires_grad for value in vars(effect).values())
    assert torch.autograd.gradcheck(lambda x: intervene(x, targets, Intervention(kind, norm), 0.7)[0], h)


@properties
@given(cases(categories=2), st.sampled_from(INTERVENTIONS), st.sampled_from(NORMS), st.sampled_from(OF_STATES))
def test_the_effect_is_what_the_states_say_when_recomputed(case, kind, norm, gate):
    targets = case.targets()
    steered, effect = intervene(case.h, targets, Intervention(kind, norm, gate, 0.2), case.strength, case.mask)
    for row in range(len(case.h)):
        kept = case.editable[row, :, 0]
        assert effect.editable[row] == kept.sum()
        if not kept.any():
            assert effect.shift[row] == effect.acted[row] == 0
            continue
        old, new = case.h[row, kept], steered[row, kept]
        size = old.norm(dim=-1)
        scale = old.abs().max() * (1 + abs(case.strength)) + 10
        assert_close(effect.before[row], (old @ targets.directions.T).mean(dim=0), scale)
        assert_close(effect.after[row], (new @ targets.directions.T).mean(dim=0), scale)
        moved = (new - old).norm(dim=-1) / size.clamp_min(1e-12)
        assert effect.shift[row].item() == pytest.approx(moved.mean().item(), rel=1e-6, abs=1e-6)


def test_strength_and_mask_may_differ_from_sample_to_sample():
    targets = stack_targets(directions(torch.eye(4)[:1]), {"c0": 1}, 0)
    h = torch.ones(2, 3, 4, dtype=torch.float64)
    strength = torch.tensor([1.0, -2.0]).double()[:, None, None]
    steered, _ = intervene(h, targets, NONE, strength, torch.tensor([[[True], [True], [False]]]))
    assert (steered - h)[..., 0].tolist() == [[3, 3, 0], [-6, -6, 0]]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"kind": "subtract"}, "'subtract' is not one of add, ablate, clamp"),
        ({"norm": "layer"}, "'layer' is not one of none, token, channel"),
        ({"gate": "maybe"}, "'maybe' is not one of off, pooled, token"),
        ({"gate": "token", "threshold": math.nan}, "threshold"),
    ],
)
def test_an_unknown_choice_is_refused(how, words):
    with pytest.raises(SafetySteeringError, match=words):
        Intervention(**how)


def test_a_mix_of_zeros_is_refused():
    with pytest.raises(SafetySteeringError, match="Every category of the mix has weight 0"):
        stack_targets(directions(torch.eye(3)), dict.fromkeys(["c0", "c1", "c2"], 0.0), 0)


def test_each_sigma_bin_has_its_own_targets():
    one = torch.ones(2)
    rows = torch.eye(4)[:2]
    category = Direction(rows, torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2]), one, one)
    point = HookPointDirections("tests", torch.tensor([0.0, 0.5, 1.0]), one, {"c0": category})
    for sigma_bin, gap in ((0, 1.0), (1, 2.0)):
        targets = stack_targets(point, {"c0": 1}, sigma_bin)
        assert torch.equal(targets.directions[0], rows[sigma_bin].double())
        assert targets.gap.item() == gap
