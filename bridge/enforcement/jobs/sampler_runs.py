"""Every sampler run of a guarded server is steered as the policy says, whatever a graph did to the model.

Core prepares each run in `comfy.sampler_helpers.prepare_model_patcher`. There the policy's wrappers are put behind
those of the graph, so they are the innermost: their edits come last. Nothing stays on the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....guardrail.content import WHOLE, SamplerRun, continued, share_of
from ....guardrail.policy import ModelIdentity, Policy, Rule
from ....safety_steering.errors import MismatchError, NotSteeredError, SafetySteeringError
from ....safety_steering.steering.trace import NOT_IN_WINDOW, RunTrace
from ...models.fingerprints import fingerprint
from ...models.model_map import block_space, model_hook_points, patcher_shape
from ...models.vector_fit import check_fits, fingerprint_warning, untested_warning
from ...steering.apply import WRAPPER_KEY, Steering
from ...steering.run import CACHED, REPLACED
from ..rule_settings import model_settings
from .encodes import EncodeGuard, running_node
from .job import Job
from .patch_digest import patches_digest

GUARD_KEY = "safety_steering_guardrail"
OUT_OF_RANGE = "the sampler called the model at noise levels that it does not have."
ADVICE = "Use sigmas of one of ComfyUI's schedulers."
LARGEST = 3.0  # root mean square of a model's own latents, at most
PACKED = 3  # dimensions of latents of several kinds that core has packed into one tensor
OUTSIDE = "A model was called in a way that the host's safety policy cannot steer. Use the sampler nodes of ComfyUI."


def identify(patcher: ModelPatcher) -> ModelIdentity:
    """What a policy's rules can match of a model. A family that the model map lacks has no name and no space."""
    try:
        shape = patcher_shape(patcher)
    except MismatchError:
        return ModelIdentity("", frozenset(), fingerprint(patcher))
    blocks = {block_space(shape, point) for point in model_hook_points(shape)}
    parts = (part for states in shape.family.states.values() for part in states)
    states = {space for part in parts for space in part.spaces.values()}
    return ModelIdentity(shape.family.name, frozenset(blocks | states), fingerprint(patcher))


class SamplingGuard:
    """Steers the sampler runs of the job that `current_job` names; without a job nothing may be sampled."""

    def __init__(self, current_job: Callable[[], Job | None], encodes: EncodeGuard) -> None:
        self._current_job = current_job
        self._encodes = encodes
        self._policy: Policy | None = None
        self._steerings: dict[Rule, Steering] = {}

    def prepare(self, patcher: ModelPatcher, model_options: dict[str, Any]) -> None:
        """Put the policy's wrappers into the options of one sampler run.

        Raises:
            SafetySteeringError: no job runs, or the policy has no rule for the model and refuses such models.
        """
        job = self._current_job()
        if job is None:
            raise NotSteeredError(OUTSIDE)
        with job.refusing():
            run = GuardedRun(job, patcher, self._steerings_for, self._encodes)
        wrappers = model_options["transformer_options"].setdefault("wrappers", {})
        if job.policy.settings.own_apply == "replace":
            _set_aside(job, wrappers)
        for kind, own in run.wrappers().items():
            keyed = wrappers.setdefault(kind, {})
            keyed.pop(GUARD_KEY, None)  # the last key is the innermost wrapper
            keyed[GUARD_KEY] = own

    def _steerings_for(self, policy: Policy, rules: tuple[Rule, ...]) -> list[Steering]:
        """One Steering a rule for as long as the policy lasts: torch.compile guards on the identity of its hooks."""
        if policy is not self._policy:
            self._policy, self._steerings = policy, {}
        for rule in rules:
            if rule not in self._steerings and (settings := model_settings(rule)):
                self._steerings[rule] = Steering(rule.vector, settings)
        return [self._steerings[rule] for rule in rules if rule in self._steerings]


def _set_aside(job: Job, wrappers: dict[str, dict[Any, list[Callable[..., Any]]]]) -> None:
    """Take the steering of the graph's own Apply nodes out of a run: it could undo the policy by arithmetic."""
    own = wrappers.get(WrappersMP.OUTER_SAMPLE, {}).get(WRAPPER_KEY)
    if not own:
        return
    wrappers[WrappersMP.OUTER_SAMPLE][WRAPPER_KEY] = [wrapper.__self__.stand_aside for wrapper in own]
    for kind in (WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL):
        wrappers.get(kind, {}).pop(WRAPPER_KEY, None)
    job.warnings.append("The graph's own Apply Safety Steering was replaced by the policy's steering (own_apply).")


class GuardedRun:
    """One sampler run under the rules that are for its model."""

    def __init__(
        self,
        job: Job,
        patcher: ModelPatcher,
        steerings_for: Callable[[Policy, tuple[Rule, ...]], list[Steering]],
        encodes: EncodeGuard,
    ) -> None:
        self._job = job
        self._rules = self._rules_for(patcher)
        self._encodes = encodes
        self._steerings = steerings_for(job.policy, self._rules)
        self._known = {id(patcher.model)}

    def wrappers(self) -> dict[str, list[Callable[..., Any]]]:
        """Kind of wrapper -> this run's own, then those of its steerings, outermost first."""
        return {
            WrappersMP.OUTER_SAMPLE: [self.outer_sample, *(steering.outer_sample for steering in self._steerings)],
            WrappersMP.CALC_COND_BATCH: [steering.calc_cond_batch for steering in self._steerings],
            WrappersMP.APPLY_MODEL: [self.apply_model, *(steering.apply_model for steering in self._steerings)],
        }

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """The OUTER_SAMPLE wrapper: judges the run when it has ended.

        Raises:
            NotSteeredError: a rule was for this model and did not act in every model call.
        """
        with self._job.refusing():
            texts = self._encodes.traces(self._job, self._rules, executor.class_obj.conds)
            self._job.runs_open += 1
            try:
                samples = executor(*args, **kwargs)
            finally:
                self._job.runs_open -= 1
            traces = [steering.traces[-1] for steering in self._steerings]
            for trace in traces:
                check_steered(trace)
            traces += texts
        node_id = running_node(self._job)
        began = self._job.flow.taken(node_id).latents()
        low, high = removed_noise(executor.class_obj, *args)
        if began.client or not began.runs:
            high = low + (high - low) * heard(executor.class_obj, args[1])
        span = (low, high)
        run = self._described(node_id, traces, span, args[1])
        self._job.runs.append(run)
        told = set(map(id, self._job.traces))  # several runs may be of one prompt
        self._job.traces += [trace for trace in traces if id(trace) not in told]
        if share_of((span,)):  # else its latents stay what they were
            self._job.flow.runs.setdefault(node_id, []).append((run, samples))
        return samples

    def _described(
        self, node_id: str, traces: list[RunTrace], span: tuple[float, float], latent: torch.Tensor
    ) -> SamplerRun:
        """What this run is made of: itself, what it began with, and what its conditioning and model were made from."""
        flow = self._job.flow
        taken = flow.taken(node_id)
        began, client = taken.latents(), set(taken.content.client)
        client.update(*(run.client for run in taken.content.runs))
        if not began and span[1] < WHOLE and bool(torch.count_nonzero(latent)):
            client.add(flow.title(node_id))  # a node has brought latents of its own
        before = min(began.runs, key=lambda run: run.share, default=None) if not began.client else None
        calls = next((trace.calls for trace in traces if not trace.texts), ())
        return SamplerRun(
            number=len(self._job.runs),
            job=self._job.prompt_id,
            steered=bool(traces) and all(run.steered for run in began.runs),
            vectors=tuple(dict.fromkeys([*began.vectors, *(str(trace.vector["sha256"]) for trace in traces)])),
            client=frozenset(client),
            spans=continued(before.spans if before else (), span),
            calls=len(calls),
            steered_calls=sum(bool(call.hooks) for call in calls),
            cached_calls=sum(call.note == CACHED for call in calls),
        )

    def apply_model(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """The APPLY_MODEL wrapper: a guider may call other models than the one that the run was prepared for."""
        model = executor.class_obj
        if id(model) not in self._known:
            with self._job.refusing():
                if self._rules_for(model.current_patcher) != self._rules:
                    raise NotSteeredError(
                        "The models of one sampler run fall under different rules of the host's safety policy. "
                        "Use models of one family in it."
                    )
            self._known.add(id(model))
        return executor(*args, **kwargs)

    def _rules_for(self, patcher: ModelPatcher) -> tuple[Rule, ...]:
        """Every rule that is for this model; notes in the job what is said about it."""
        policy, identity = self._job.policy, identify(patcher)
        patches = patches_digest(patcher)
        self._job.models[f"{identity.fingerprint}{patches and '+'}{patches}"] = identity.family
        rules = policy.rules_for(identity)
        if not rules:
            name = identity.family or type(patcher.model.diffusion_model).__name__
            self._say(
                policy.settings.without_rule,
                f"The host's safety policy has no rule for this model ({name}, {identity.fingerprint}).",
            )
        if rules and (warning := untested_warning(patcher_shape(patcher))):
            self._job.warnings.append(warning)
        for rule in rules:
            in_model = model_settings(rule)
            points = in_model.hook_points if in_model else ()
            try:
                check_fits(rule.vector, points, patcher_shape(patcher))
            except MismatchError as error:
                logging.error("Safety Steering: %s: %s", rule.name, error)
                raise SafetySteeringError(
                    f"The rule '{rule.name}' of the host's safety policy is for this kind of model, but its vector was "
                    "made for another size of it. Only the host can change that. Choose another of the host's models."
                ) from error
            if warning := fingerprint_warning(rule.vector, points, patcher):
                self._say(policy.settings.other_weights, f"{rule.name}: {warning}")
        return rules

    def _say(self, action: str, sentence: str) -> None:
        if action == "refuse":
            raise SafetySteeringError(f"{sentence} Choose one of the models that the host offers.")
        self._job.warnings.append(sentence)


def removed_noise(
    guider: Any, noise: Any, latent: torch.Tensor, sampler: Any, sigmas: torch.Tensor, mask: Any = None, *rest: Any
) -> tuple[float, float]:
    """The part of the noise range that a run removes, 0 clean to 1 pure noise; of a masked latent the masked share.

    Of several pictures it is that of the one of which the least is removed.
    """
    most = float(guider.model_patcher.get_model_object("model_sampling").sigma_max)
    high, low = (min(1.0, max(0.0, float(sigma) / most)) for sigma in (sigmas[0], sigmas[-1]))
    return low, low + max(0.0, high - low) * (1.0 if mask is None else float(mask.flatten(1).mean(1).min().clamp(0, 1)))


def heard(guider: Any, latent: torch.Tensor) -> float:
    """How much of a run's noise counts, 0 to 1: in latents that are far larger than a model's own it drowns."""
    if latent.ndim > PACKED:
        latent = guider.model_patcher.model.process_latent_in(latent)  # in this scale a model's own have about 1
    power = float(latent.float().flatten(1).square().mean(1).max())
    return min(1.0, LARGEST**2 / power) if power > 0 else 1.0


def check_steered(trace: RunTrace) -> None:
    """Raise NotSteeredError unless steering acted, and in no model call another node stood in a target block's place.

    Apply is content with a run in which it acted at all; here each call counts.
    """
    if not trace.succeeded:
        reason = OUT_OF_RANGE if trace.calls and trace.status == NOT_IN_WINDOW else trace.reason
        raise NotSteeredError(f"The host's safety policy did not act in this run ({trace.status}): {reason} {ADVICE}")
    replaced = sum(call.note == REPLACED for call in trace.calls)
    if replaced:
        raise NotSteeredError(
            f"In {replaced} of {len(trace.calls)} model calls another node stood in the place of a block that the "
            "host's safety policy steers. Remove that node, or let it leave that block alone."
        )


def check_model_call(transformer_options: dict[str, Any] | None) -> None:
    """Raise NotSteeredError unless a guarded run made this model call, and nothing was put behind its wrappers."""
    keyed = (transformer_options or {}).get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})
    if not keyed or list(keyed)[-1] != GUARD_KEY:
        raise NotSteeredError(OUTSIDE)
