"""Steering: what Apply Safety Steering puts on a model, and how it acts in a sampler run.

Three wrappers on a cloned ModelPatcher do the work. OUTER_SAMPLE opens a run, learns which conditioning is positive or
negative, and judges the run at its end. CALC_COND_BATCH notes whose conditionings core batches. APPLY_MODEL edits one
model call. Two callbacks notice uses of the model that skip these wrappers. Nothing stays on the shared model. A
Steering keeps no state of a run, except for the number of open runs and the traces of ended ones.
"""

from __future__ import annotations

import logging
import sys
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_execution.utils import get_executing_context

from ...safety_steering.errors import NotSteeredError
from ...safety_steering.steering.trace import OFF, RunTrace
from ...safety_steering.vectors.vector import SafetyVector
from ..models.model_map import patcher_shape, read_shape, witness_points
from ..models.swaps import swap_warning, unwrap
from ..models.vector_fit import check_fits, fingerprint_warning, untested_warning
from .branches import call_roles, is_targeted, list_roles, roles_by_uuid
from .compile_guards import guard_hooks
from .injection import Injection
from .model_call import ModelCall, named, proceed, sigma_of
from .run import OTHER_BRANCH, OUTSIDE_WINDOW, Call, Run, check_finite, check_missed, finish
from .run_log import KEPT_TRACES, RunLog, about, described
from .settings import SteeringSettings

WRAPPER_KEY = "safety_steering"
# node id -> the steering that the node made last
STEERINGS: WeakValueDictionary[str, Steering] = WeakValueDictionary()

guard_hooks()


def apply_steering(
    patcher: ModelPatcher,
    vector: SafetyVector,
    settings: SteeringSettings,
    on_trace: Callable[[RunTrace], None] | None = None,
) -> ModelPatcher:
    """A clone of `patcher` that steers every sampler run; the original is unchanged. on_trace: called after each run.

    Raises:
        MismatchError: the model is not supported, or the vector was made for another one.
    """
    shape = patcher_shape(patcher)
    check_fits(vector, settings.hook_points, shape)
    warnings = (untested_warning(shape), fingerprint_warning(vector, settings.hook_points, patcher))
    steering = Steering(vector, settings, " ".join(filter(None, warnings)), on_trace)
    steered = patcher.clone()
    steered.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, steering.outer_sample)
    steered.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, WRAPPER_KEY, steering.calc_cond_batch)
    steered.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY, steering.apply_model)
    steered.add_callback_with_key(CallbacksMP.ON_PRE_RUN, WRAPPER_KEY, steering.before_run)
    steered.add_callback_with_key(CallbacksMP.ON_CLEANUP, WRAPPER_KEY, steering.after_run)
    return steered


def without_steering(patcher: ModelPatcher) -> ModelPatcher:
    """A clone of a model without any Apply Safety Steering."""
    plain = patcher.clone()
    for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL):
        plain.remove_wrappers_with_key(kind, WRAPPER_KEY)
    for kind in (CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_CLEANUP):
        plain.remove_callbacks_with_key(kind, WRAPPER_KEY)
    return plain


def steerings_of(patcher: ModelPatcher) -> list[Steering]:
    """The steerings on a model, in the order in which they were applied."""
    return [wrapper.__self__ for wrapper in patcher.get_wrappers(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY)]


class Steering:
    """One vector applied with one set of settings to one model patcher and its clones.

    traces: what the last sampler runs did, oldest first. log: its runs by the node that sampled. node_id: of the node
    that made it. warning: goes into every trace, if not empty. on_trace: called after each run.
    """

    def __init__(
        self,
        vector: SafetyVector,
        settings: SteeringSettings,
        warning: str = "",
        on_trace: Callable[[RunTrace], None] | None = None,
    ) -> None:
        self.vector = vector
        self.settings = settings
        self.traces: deque[RunTrace] = deque(maxlen=KEPT_TRACES)
        self.log = RunLog()
        context = get_executing_context()
        self.node_id = context.node_id if context else ""
        if self.node_id:
            STEERINGS[self.node_id] = self
        self._warning = warning
        self._on_trace = on_trace
        self._off = _why_off(vector, settings)
        self._run_key = f"{WRAPPER_KEY}.{uuid.uuid4().hex}"
        self._injection = Injection(vector, settings)
        self._checked: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()
        self._open_runs = 0
        self._asked = True

    @property
    def off(self) -> bool:
        """Whether the user's choices ask for no steering at all."""
        return bool(self._off)

    @property
    def described(self) -> dict[str, Any]:
        """The settings as plain data."""
        return described(self.vector, self.settings)

    def tell(self, trace: RunTrace) -> None:
        """Call `on_trace`, if there is one."""
        if self._on_trace is not None:
            self._on_trace(trace)

    def before_run(self, patcher: ModelPatcher) -> None:
        """The ON_PRE_RUN callback: a run is about to use `patcher`, with its wrappers or without them."""
        self._asked = self._open_runs > 0

    def after_run(self, patcher: ModelPatcher) -> None:
        """The ON_CLEANUP callback: the use of `patcher` is over.

        Raises:
            NotSteeredError: the run called none of the wrappers, as for the second model of Dual Model CFG Guider.
        """
        asked, self._asked = self._asked, True
        failed_already = sys.exc_info()[0] is not None
        if not (asked or self._off or failed_already):
            raise NotSteeredError(
                "This run took its nodes from another model, so the Apply Safety Steering on this one did not act. "
                "Wire Apply to the guider's main input, model: there it steers both models of a Dual Model CFG Guider."
            )

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """The OUTER_SAMPLE wrapper: one sampler run.

        Raises:
            NotSteeredError: the run should have been steered and was not.
        """
        if self._off:
            self._record(RunTrace(OFF, reason=self._off, **about(self.vector, self.settings)))
            return executor(*args, **kwargs)
        guider = executor.class_obj
        run = Run(roles_by_uuid(guider.conds), warnings=[self._warning] if self._warning else [])
        # core makes this dict anew for each run
        guider.model_options["transformer_options"][self._run_key] = run
        self._open_runs += 1
        try:
            samples = executor(*args, **kwargs)
        finally:
            self._open_runs -= 1
        trace = finish(run, self.settings.branch, **about(self.vector, self.settings))
        if trace.succeeded:
            check_finite(samples)
        self._record(trace)
        return samples

    def stand_aside(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """The OUTER_SAMPLE wrapper of a run that a host's policy steers instead: nothing is done, nothing is missed."""
        self._record(
            RunTrace(
                OFF, reason="the host's safety policy steers this run instead.", **about(self.vector, self.settings)
            )
        )
        self._open_runs += 1
        try:
            return executor(*args, **kwargs)
        finally:
            self._open_runs -= 1

    def calc_cond_batch(
        self, executor: Any, model: Any, conds: Any, x_in: torch.Tensor, timestep: torch.Tensor, model_options: Any
    ) -> Any:
        """The CALC_COND_BATCH wrapper: notes the branch of each list of conditionings that core now batches."""
        run: Run | None = model_options.get("transformer_options", {}).get(self._run_key)
        if run is None:
            return executor(model, conds, x_in, timestep, model_options)
        outer, run.lists = run.lists, list_roles(conds, run.roles)
        try:
            return executor(model, conds, x_in, timestep, model_options)
        finally:
            run.lists = outer

    def apply_model(self, executor: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The APPLY_MODEL wrapper: one model call.

        Raises:
            NotSteeredError: the model ran and a target was not steered.
        """
        self._asked = True
        if self._off:
            return executor(*args, **kwargs)
        arguments = named(args, kwargs)
        # hide the run from the model: a compiled graph would keep this run's key and look for it in later runs
        options = arguments["transformer_options"] = dict(arguments["transformer_options"] or {})
        run: Run | None = options.pop(self._run_key, None)
        model = executor.class_obj
        roles = call_roles(options, run.roles, run.lists) if run else call_roles(options, {})
        call = Call(sigma_of(arguments), roles, arguments["x"].shape[0] // len(roles))
        call.note = self._why_not(call, model.model_sampling)
        if run is not None:
            run.calls.append(call)
        diffusion_model = unwrap(model.diffusion_model)
        shape = read_shape(diffusion_model)
        model_call, witnesses = ModelCall(diffusion_model, shape.family, arguments), witness_points(shape)
        if call.note:
            with self._injection.watched(model_call, call, witnesses):
                return proceed(executor, arguments)

        if self._checked.get(diffusion_model) != shape.swapped:
            check_fits(self.vector, self.settings.hook_points, shape)
            self._checked[diffusion_model] = shape.swapped
        if run is not None and shape.swapped:
            run.warnings.append(swap_warning(shape.swapped, shape.family.name))
        with self._injection.steered(model_call, call, witnesses) as steered:
            result = proceed(executor, steered)
        if run is None:  # called outside of a sampler run: the call is judged by itself
            self.log.add(finish(Run(calls=[call]), self.settings.branch, **about(self.vector, self.settings)))
        elif call is run.calls[0]:  # a first call cannot come from a cache: no need to wait for the end of the run
            check_missed(run)
        return result

    def _why_not(self, call: Call, model_sampling: Any) -> str:
        """Why a call is not steered, or an empty string. Compares sigmas, because samplers differ in their steps.

        A call at sigma 0 is no denoising step: an autoregressive model reads the frames it has made into its cache, for
        all later frames. Such a call is always in the window.
        """
        start, end = self.settings.window
        first, last = (float(model_sampling.percent_to_sigma(edge)) for edge in (start, end))
        if call.sigma > 0 and not (call.sigma <= first and (call.sigma > last or end == 1)):
            return OUTSIDE_WINDOW
        return "" if any(is_targeted(role, self.settings.branch) for role in call.roles) else OTHER_BRANCH

    def _record(self, trace: RunTrace) -> None:
        self.traces.append(trace)
        self.log.add(trace)
        level = logging.INFO if trace.succeeded or trace.status == OFF else logging.WARNING
        logging.log(level, "Safety Steering: %s", trace.summary())
        for warning in trace.warnings:
            logging.warning("Safety Steering: %s", warning)
        self.tell(trace)


def _why_off(vector: SafetyVector, settings: SteeringSettings) -> str:
    """Why the user's choices ask for no steering at all, or an empty string."""
    if settings.off:
        return "strength is 0."
    return "" if any(vector.mix.values()) else "every category of the mix weighs 0."
