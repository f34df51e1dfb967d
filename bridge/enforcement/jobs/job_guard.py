"""In front of core's functions: each job runs under the policy that was in force when it began, and is accounted for.

Core runs one job after the other in one thread, and the nodes of a job one after the other. So the running job and its
running node are plain attributes here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths

from ....guardrail.errors import Refused
from ....guardrail.job_record import NOT_SAMPLED, REFUSED, STEERED, JobRecord
from ....guardrail.plain_text import shown
from ....guardrail.policy import Policy
from ....safety_steering.errors import NotSteeredError
from ...steering.lost import lost_steerings
from ..choke_points import UnknownCore, Wrap
from ..clean_logs import cleaned_error
from ..shown_values import carries_picture
from .admission import OWN, check_prompt
from .encodes import EncodeGuard
from .flow import Flow, Origins
from .folder_watch import Changes, Listing
from .job import Job
from .lora_guard import LoraGuard
from .module_watch import ModuleWatch
from .node_facts import CORE, facts_of
from .node_guard import Results, check_inputs, remove, unsigned
from .sampler_runs import OUTSIDE, SamplingGuard, check_model_call
from .sealing import record_of, withhold
from .staging import place_of

if TYPE_CHECKING:
    from ..guarded_server import GuardedServer


# What core tells clients of jobs; anything else is a pack's message
CORE_EVENTS = {"status", "progress", "progress_state", "executing", "executed", "feature_flags", "logs"} | {
    f"execution_{what}" for what in ("start", "cached", "success", "error", "interrupted")
}
LEFT = "A node of this job left a file ({}) that could not be judged and signed. It is removed."


class JobGuard:
    """The running job of a guarded server, and the functions that stand in front of core's."""

    def __init__(self, server: GuardedServer) -> None:
        self.job: Job | None = None
        self._server = server
        self._policy: Policy | None = None
        self._origins = Origins()
        self._dynprompt: Any = None
        self._before: dict[str, Listing] = {}
        self._first: Listing | None = None
        self._encodes = EncodeGuard(lambda: self.job)
        self._sampling = SamplingGuard(lambda: self.job, self._encodes)
        self._loras = LoraGuard(lambda: self.job)
        self._modules = ModuleWatch()
        self._hidden = tuple(
            str(Path(folder).resolve()) for folder in (folder_paths.base_path, folder_paths.models_dir, CORE)
        )

    def wraps(self) -> dict[str, Wrap]:
        """Choke point -> what is put around its function."""
        return {
            **self._loras.wraps(),
            **self._encodes.wraps(),
            **self._modules.wraps(),
            "error": self._around_error,
            "job": self._around_job,
            "node": self._around_node,
            "message": self._around_message,
            "inputs": self._around_inputs,
            "outputs": self._around_outputs,
            "run": self._around_run,
            "model call": self._around_model_call,
        }

    def _around_job(self, original: Callable[..., None]) -> Callable[..., None]:
        def execute(
            executor: Any,
            prompt: dict[str, Any],
            prompt_id: str,
            extra_data: dict[str, Any] | None = None,
            execute_outputs: list[str] | None = None,
        ) -> None:
            extra_data = extra_data or {}
            try:
                if self._server.signs:
                    self._server.unknown.sweep()
                job = self._begin(executor, prompt, prompt_id)
            except Exception as error:
                self._server.write_refusal(prompt_id, str(error))
                withhold(executor, prompt, prompt_id, extra_data, error)
                return
            if job.is_gated:  # a preview would show what the gate has not seen
                extra_data = {**extra_data, "preview_method": "none"}
            self.job = job
            try:
                original(executor, prompt, prompt_id, extra_data, execute_outputs or [])
            except BaseException as error:  # it would end core's only worker
                logging.exception("Safety Steering: core failed while it ran a job")
                job.refusal = job.refusal or f"The server failed while it ran this job: {error}"
            finally:
                self.job = None
            try:
                problem = self._conclude(job, executor)
            except Exception as error:  # it would end core's only worker too
                logging.exception("Safety Steering: a job could not be concluded")
                _drop_outputs(job)
                self._server.write_refusal(prompt_id, str(error))
                problem = error
            if problem is not None:
                withhold(executor, prompt, prompt_id, extra_data, problem)

        return execute

    def _around_node(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def execute(server: Any, dynprompt: Any, caches: Any, current_item: str, *args: Any) -> Any:
            self._running().node_id = current_item
            self._dynprompt = dynprompt
            own = dynprompt.get_node(current_item)["class_type"].startswith(OWN)  # they read again what they wrote
            with nullcontext() if own else self._server.staging.writing(place_of(dynprompt, current_item)):
                return await original(server, dynprompt, caches, current_item, *args)

        return execute

    def _around_inputs(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def get_output_data(
            prompt_id: str, unique_id: str, obj: Any, input_data_all: dict[str, list[Any]], **callbacks: Any
        ) -> Any:
            job, facts = self._running(), facts_of(type(obj))
            with job.refusing():
                job.flow.take(self._dynprompt, unique_id, facts, input_data_all)
                self._encodes.begin(job, unique_id, facts, input_data_all)
                inputs, tripped = check_inputs(job, unique_id, type(obj), input_data_all)
                self._server.metrics.add("gate_trips", int(tripped))
                self._server.staging.begin(place_of(self._dynprompt, unique_id))
            if not facts.is_core:
                self._before[unique_id] = listing = self._server.folders.listing()
                self._first = self._first or listing
            return await original(prompt_id, unique_id, obj, inputs, **callbacks)

        return get_output_data

    def _around_outputs(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def get_output_from_returns(return_values: Any, obj: Any) -> Any:
            output, shown, has_subgraph = original(return_values, obj)
            job = self._running()
            with job.refusing():
                signer = self._server.signer if job.policy.settings.evidence.sign else None
                node_class = obj if isinstance(obj, type) else type(obj)
                results = Results(job, job.node_id, node_class, self._server.staging, signer)
                before = self._before.pop(job.node_id, None)
                changes = self._server.folders.since(before) if before else Changes()
                self._encodes.end(job.node_id, output, has_subgraph)
                output, shown = results.take(output, shown, has_subgraph, changes)
            return output, shown, has_subgraph

        return get_output_from_returns

    def _around_error(self, original: Callable[..., None]) -> Callable[..., None]:
        def add_message(executor: Any, event: str, data: dict[str, Any], broadcast: bool) -> None:
            told = cleaned_error(data, self._hidden) if event == "execution_error" else data
            original(executor, event, told, broadcast)

        return add_message

    def _around_message(self, original: Callable[..., None]) -> Callable[..., None]:
        def send_sync(server: Any, event: Any, data: Any, sid: Any = None) -> None:
            """Frames are sent to the job's own client, while a sampler run goes on; else they were not steered.

            What is told of a job of no client would be told to all, with the id by which it can be read.
            """
            frames = isinstance(event, int) or isinstance(data, bytes | bytearray)
            job = self.job
            if frames and job is not None and (job.runs_open == 0 or sid is None or job.is_gated):
                return
            if sid is None and isinstance(data, Mapping) and "prompt_id" in data:
                return
            if not frames and event not in CORE_EVENTS and carries_picture(data):
                logging.warning("Safety Steering: a message of a pack with a picture in it was not sent.")
                return
            original(server, event, data, sid)

        return send_sync

    def _around_run(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def prepare_model_patcher(model: Any, conds: Any, model_options: dict[str, Any]) -> Any:
            prepared = original(model, conds, model_options)
            self._sampling.prepare(model, model_options)
            return prepared

        return prepare_model_patcher

    def _around_model_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def apply_model(
            model: Any,
            x: Any,
            t: Any,
            c_concat: Any = None,
            c_crossattn: Any = None,
            control: Any = None,
            transformer_options: Mapping[str, Any] = {},
            **kwargs: Any,
        ) -> Any:
            with self._running().refusing():
                check_model_call(transformer_options)
            return original(model, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

        return apply_model

    def _running(self) -> Job:
        if self.job is None:
            raise NotSteeredError(OUTSIDE)
        return self.job

    def _begin(self, executor: Any, prompt: dict[str, Any], prompt_id: str) -> Job:
        policy = self._server.ready()
        check_prompt(prompt, policy)
        if policy is not self._policy:
            executor.reset()  # what core cached was made under another policy
            self._origins.clear()
            self._server.metrics.add("policy_reloads", int(self._policy is not None))
            self._policy = policy
        job = Job(prompt_id, prompt, policy, Flow(executor, self._origins))
        job.healed = self._server.guarded.healed if self._server.guarded else 0
        return job

    def _conclude(self, job: Job, executor: Any) -> Exception | None:
        """Write down what came of a job; why its outputs are withheld, or None."""
        job.flow.remember_expanded()
        self._encodes.forget_nodes()
        _note_lost(job, executor)
        self._sweep(job)
        self._undo(job, executor)
        # also what came out of core's cache
        told = executor.history_result.get("outputs", {}).values() if executor.success else ()
        if job.dropped and not (job.outputs or job.showed_words or any(_shows(ui, job.dropped) for ui in told)):
            job.refusal = job.refusal or next(iter(job.dropped.values()))
        if job.refusal:
            _drop_outputs(job)
        try:
            record = record_of(job, executor.status_messages)
            self._server.write(record, job.policy)
        except Exception as error:
            logging.exception("Safety Steering: a job could not be written down")
            _drop_outputs(job)
            self._server.write_refusal(job.prompt_id, str(error))
            return error
        self._count(record)
        return Refused(job.refusal) if job.refusal else None

    def _sweep(self, job: Job) -> None:
        """What a pack has left in folders that clients reach, with no node's end to account for it, is removed."""
        before, self._first = self._first, None
        self._before.clear()
        changes = self._server.folders.since(before) if before else Changes()
        if left := [*unsigned(job, changes.new), *changes.strays]:
            for path in left:
                remove(path)
            job.refusal = job.refusal or LEFT.format(shown(left[0].name))

    def _undo(self, job: Job, executor: Any) -> None:
        """What a job did to core or to a shared model is undone; a job that changed core is refused."""
        guarded = self._server.guarded
        if guarded is not None:
            with suppress(UnknownCore):
                guarded.check()
            if guarded.healed != job.healed:
                job.refusal = guarded.told
        if changed := self._modules.heal():
            logging.warning("Safety Steering: %s", " ".join(changed))
            said, success = executor.status_messages, executor.success
            executor.reset()  # its caches; what became of the job stays
            executor.status_messages, executor.success = said, success
            self._origins.clear()
        else:
            forget_results(executor, job.prompt if job.refusal else job.dropped)

    def _count(self, record: JobRecord) -> None:
        metrics = self._server.metrics
        metrics.add("jobs")
        metrics.add("steered", int(record.verdict == STEERED))
        metrics.add("unsampled", int(record.verdict == NOT_SAMPLED))
        metrics.add("refused", int(record.decision == REFUSED))
        metrics.add("steps", record.steered_steps)


def forget_results(executor: Any, node_ids: Iterable[str]) -> None:
    """Take results that show something out of core's cache: their files are gone."""
    cache = executor.caches.outputs
    keys, kept = getattr(cache, "cache_key_set", None), getattr(cache, "cache", {})
    for node_id in node_ids if keys is not None else ():
        key = keys.get_data_key(node_id)
        if key in kept and getattr(kept[key], "ui", None):
            del kept[key]


def _note_lost(job: Job, executor: Any) -> None:
    """Each of the graph's own Apply nodes that no sampler run belongs to is told, or the job is refused for it."""
    for lost in lost_steerings(executor, job.prompt_id):
        job.warnings.append(lost.sentence)
        if job.policy.settings.lost_apply == "refuse":
            job.refusal = job.refusal or f"{lost.sentence} The host's policy asks for that (lost_apply)."


def _shows(ui: Mapping[str, Any], dropped: Mapping[str, str]) -> bool:
    """Whether a node's output shows more than why it, or a node of the same inputs, is not delivered."""
    notes = tuple(dropped.values())
    return any(value for values in ui.values() for value in values if value not in notes)


def _drop_outputs(job: Job) -> None:
    for path in job.outputs:
        remove(path)
    job.outputs.clear()
