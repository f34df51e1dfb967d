"""What is said about a guarded job: a signed record of each file, a line of the audit, or that it is withheld."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....guardrail.content import Content
from ....guardrail.evidence import Statement, sign_file
from ....guardrail.job_record import DELIVERED, FAILED, INTERRUPTED, REFUSED, REPLACED, JobRecord, sum_up
from ....guardrail.keys import Signer
from ...folders import sha256_of
from .job import Job
from .node_facts import facts_of

TEXT_LIMIT = 10_000  # characters of prompt text in the audit, if the policy asks for it


def seal(
    job: Job, node_id: str, path: Path, content: Content, unjudged: tuple[str, ...], signer: Signer | None
) -> Mapping[str, Any]:
    """The record of a file that a node wrote and that is not served yet: signed beside it, or without a signature if
    the policy wants none. unjudged: what the output gate, if it is on, could not see of it.

    Raises:
        EvidenceError: it cannot be signed.
    """
    if signer is None:
        return {"file": path.name, "file_sha256": sha256_of(path), "verdict": content.verdict}
    decision = REPLACED if node_id in job.held_back else DELIVERED
    made = {"vectors": content.vectors, "verdict": content.verdict, "share": content.share}
    made |= {"client_inputs": content.client_inputs, **content.counted()}
    made |= {"unjudged": unjudged}
    return sign_file(path, Statement(job.prompt_id, job.policy.sha256, decision=decision, **made), signer)


def record_of(job: Job, messages: Sequence[Any]) -> JobRecord:
    """A job's line of the audit. messages: what the executor said about it, (event, data) pairs."""
    said = dict(messages)
    decision, reason = _decision(job, said)
    summed = sum_up(job.traces)
    reused = Content(frozenset(job.flow.reused))
    return JobRecord(
        prompt_id=job.prompt_id,
        policy_sha256=job.policy.sha256,
        verdict=job.verdict,
        decision=decision,
        reason=reason,
        models=tuple(job.models),
        outputs=tuple(output.record for output in job.outputs.values()),
        prompt=_texts(job) if job.policy.settings.audit.log_prompt_text else None,
        **{
            **summed,
            "vectors": tuple(dict.fromkeys([*summed["vectors"], *reused.vectors])),
            "cached_calls": sum(run.cached_calls for run in job.runs),
            "warnings": tuple(dict.fromkeys([*summed["warnings"], *job.warnings, *job.dropped.values()])),
        },
    )


def _decision(job: Job, said: Mapping[str, Any]) -> tuple[str, str]:
    if job.refusal:
        return REFUSED, job.refusal
    if "execution_interrupted" in said:
        return INTERRUPTED, ""
    if "execution_error" in said:
        error = said["execution_error"]
        return FAILED, f"{error['node_type']}: {error['exception_type']}"  # its message may quote the prompt
    held_back = next(iter(job.held_back.values()), "")
    return (REPLACED, held_back) if held_back else (DELIVERED, "")


def _texts(job: Job) -> str:
    """The texts of the graph's inputs for text of several lines, which is where prompts are written."""
    import nodes

    texts = []
    for node in job.prompt.values():
        node_class = nodes.NODE_CLASS_MAPPINGS.get(node["class_type"])
        for name in facts_of(node_class).texts if node_class else ():
            value = node["inputs"].get(name)
            texts += [value] if isinstance(value, str) else []
    return "\n".join(texts)[:TEXT_LIMIT]


def withhold(executor: Any, prompt: Any, prompt_id: str, extra_data: Mapping[str, Any], error: Exception) -> None:
    """Let core tell the client that the job failed, and why, and show none of its outputs."""
    node_id = str(getattr(error, "node_id", "") or "")
    node = prompt.get(node_id, {}) if isinstance(prompt, dict) else {}
    said = dict(getattr(executor, "status_messages", []))
    executor.server.client_id = extra_data.get("client_id")
    executor.history_result = {"outputs": {}, "meta": {}}
    executor.success = False
    if said.get("execution_start", {}).get("prompt_id") != prompt_id:
        executor.status_messages = []
        executor.add_message("execution_start", {"prompt_id": prompt_id}, broadcast=False)
    elif "execution_error" in said:
        return
    else:
        executor.status_messages = [item for item in executor.status_messages if item[0] != "execution_success"]
    message = {
        "prompt_id": prompt_id,
        "node_id": node_id,
        "node_type": node.get("class_type", "") if isinstance(node, dict) else "",
        "executed": [],
        "exception_message": str(error),
        "exception_type": type(error).__name__,
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
    }
    executor.add_message("execution_error", message, broadcast=False)
