"""Before and after each node of a guarded job: its inputs are checked, and its files are published or withheld."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from comfy.model_patcher import ModelPatcher

from ....guardrail.content import NOTHING, Content, union
from ....guardrail.errors import Refused
from ....guardrail.evidence import sidecar_of
from ....guardrail.job_record import CLIENT_BASED
from ....guardrail.keys import Signer
from ....guardrail.plain_text import is_plain_name
from ....guardrail.plain_text import shown as printable
from ....guardrail.policy_settings import PolicySettings
from ....safety_steering.errors import SafetySteeringError
from ..media import REFUSED as MEDIA_REFUSED
from ..media import refers_elsewhere
from ..shown_values import entries_of, is_lost, without_names, without_numbers
from .admission import OWN, check_node, texts_of
from .flow import Taken, input_file
from .folder_watch import Changes, is_plain_file
from .gate import WITHOUT_FRAMES, Seen, gate_inputs
from .job import Job, OutputFile
from .node_facts import NodeFacts, facts_of
from .sealing import seal
from .staging import Staging, Written
from .values import (
    carries_pictures,
    is_blank,
    is_picture,
    is_text_file,
    is_weights_file,
    leaves,
    same_object,
    spells_picture,
)

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".webm", ".mkv"}
# Core's nodes of which a file in the output or temp folder is made of one input and not of all
PARTS = {"Preview3D": {"temp": "bg_image", "output": "model_file"}}
PREVIEWS = {"Preview3D"}  # write what they preview into the output folder
NOT_DELIVERED = {
    "not sampled here": ("no sampler run of this server made it", "Save what a sampler of this graph made."),
    "contains other content": (
        "it contains content that no sampler run of this server made",
        "Save it without that content.",
    ),
    "steered from client content": ("it was made from content of the client", "Begin with an empty latent."),
    "no rule": ("no rule of the policy steered the model that made it", "Choose another of the host's models."),
}
WHOLE_FILE = "the whole file"
UNSEEN = (
    "The output gate could not see what this node wrote ({}), so it is not delivered (output_gate.unjudged). Save it "
    "without that, or as pictures or a video without sound."
)
WEIGHTS_WRITTEN = "It wrote a file of weights, which is not permitted here (permits.merge_and_save_models). Remove it."
CHANGED = "It changed or deleted files that it did not make ({}). Leave this node out."
STRAY = (
    "It wrote a file ({}) into the input folder or a user's folder, where nothing is judged or signed. Leave this node "
    "out, or use one that saves into the output folder."
)
NO_FILE = "It wrote a link or the like ({}) and no file, so it cannot be signed. Leave this node out."
LONGEST_TEXT = 16 * 1024**2
LONG = "It gives a text of more than 16 million letters, which this server does not hold. Use shorter texts."
ODD_NAME = "The name of its file ({}) has characters that are not shown as they are. Give a plain file name."
FOREIGN = (
    "It takes a model and gives pictures, but no sampler run of ComfyUI happened in it, so they are not steered. "
    "Use the sampler nodes of ComfyUI."
)
NUMBERS = "This text carries pictures and not words, so it is not shown. Use Preview Image."


def check_inputs(
    job: Job, node_id: str, node_class: type, values: dict[str, list[Any]]
) -> tuple[Mapping[str, list[Any]], bool]:
    """A node's inputs as it may have them, and whether the output gate held something back.

    Raises:
        SafetySteeringError: the policy refuses the node, or what it would write.
    """
    if job.refusal:  # a node has swallowed the error
        raise Refused(job.refusal, node_id)
    facts = facts_of(node_class)
    check_node(node_class, values, job.policy, node_id, job.prompt.get(node_id))
    for text in (text for given in values.values() for value in given for text in texts_of(value)):
        if (path := input_file(text)) and refers_elsewhere(path):
            raise Refused(MEDIA_REFUSED, node_id)
    taken = job.flow.taken(node_id)
    parts = [taken.contents.get(part, NOTHING) for part in PARTS.get(facts.name, {}).values()]
    shows = facts.is_output and any(carries_pictures(value) for given in values.values() for value in given)
    leaves_here = any(job.policy.settings.delivers(content.verdict) for content in (taken.shown(), *parts))
    if not (shows and _is_gated(job, facts) and leaves_here):
        return values, False
    gated = gate_inputs(values, job.policy, facts.takes)
    job.seen[node_id] = gated.seen
    if gated.reason:
        job.held_back[node_id] = gated.reason
    return gated.values, bool(gated.reason)


class Results:
    """What a node that has ended may leave behind. changes: in folders that clients reach, if it is a pack's."""

    def __init__(self, job: Job, node_id: str, node_class: type, staging: Staging, signer: Signer | None) -> None:
        self._job = job
        self._node_id = node_id
        self._facts = facts_of(node_class)
        self._staging = staging
        self._signer = signer
        self._moved: dict[Path, tuple[str, Path]] = {}
        self._dropped: list[str] = []
        self._lost: set[str] = set()

    def take(
        self, output: Sequence[Any], shown: Mapping[str, Any], expanded: bool, changes: Changes
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """Publish or withhold the node's files; returns its results and what it shows, with the files' final names.

        Raises:
            SafetySteeringError: something may not stay, or cannot be signed; then all files of the node are gone.
        """
        job, taken = self._job, self._job.flow.taken(self._node_id)
        made = job.flow.give(self._node_id, self._facts, output, expanded)
        if any(isinstance(text, str) and len(text) > LONGEST_TEXT for values in output for text in _listed(values)):
            raise Refused(LONG, self._node_id)
        files = [*self._staging.written(job.flow.place(self._node_id)), *self._past_staging(changes)]
        try:
            if odd := next((file.name for file in files if not is_plain_file(file.path)), None):
                raise Refused(NO_FILE.format(printable(odd.name)), self._node_id)
            if odd := next((file.name for file in files if not is_plain_name(str(file.name))), None):
                raise Refused(ODD_NAME.format(printable(str(odd))), self._node_id)
            self._refuse_foreign(taken, output)
            content = made if self._node_id in job.flow.runs and made else taken.shown()
            announced = {(entry["type"], entry["filename"]) for entry in entries_of(shown)}
            named = {Path(text).name for text in texts_of(shown)}
            for file in files:
                told = (file.kind, file.name.name) in announced or file.name.name in named
                if file.kind == "output" or file.served or told:
                    part = self._part_of(file)
                    self._take_file(file, taken, taken.contents.get(part, NOTHING) if part else content)
            return self._told(output, shown, taken.shown() | made)
        except (OSError, SafetySteeringError):
            for file in files:
                remove(file.path)
            for kind, name in self._moved.values():
                path = self._staging.folder(kind) / name
                remove(path)
                job.outputs.pop(path, None)
            raise

    def _take_file(self, file: Written, taken: Taken, content: Content) -> None:
        settings = self._job.policy.settings
        weights = is_weights_file(file.path)
        if weights and not settings.permits.merge_and_save_models:
            raise Refused(WEIGHTS_WRITTEN, self._node_id)
        words = is_text_file(file.path) and not _pictures(taken) and _all_words(taken)
        content = NOTHING if weights or words else content
        unjudged = () if weights or words else self._unjudged(file)
        why = "" if weights or words else self._why_not(content, unjudged, settings)
        if not why:
            self._publish(file, content, unjudged)
        elif file.kind == "temp" or self._facts.names & PREVIEWS:
            remove(file.path)
            self._dropped.append(why)
            self._lost.add(file.name.name)
        else:
            raise Refused(why, self._node_id)

    def _part_of(self, file: Written) -> str:
        """The input that a file is made of alone; empty if it is made of all."""
        of_core = self._facts.is_core and not file.served
        return PARTS.get(self._facts.name, {}).get(file.kind, "") if of_core else ""

    def _unjudged(self, file: Written) -> tuple[str, ...]:
        """What of a file the output gate could not see."""
        if not _is_gated(self._job, self._facts):
            return ()
        seen, part = self._job.seen.get(self._node_id, {}), self._part_of(file)
        found = seen.get(part, Seen()) if part else reduce(Seen.__or__, seen.values(), Seen())
        return found.unjudged or (() if found.judged else (WHOLE_FILE,))

    def _why_not(self, content: Content, unjudged: tuple[str, ...], settings: PolicySettings) -> str:
        if not settings.delivers(content.verdict):
            client = ", ".join(content.client_inputs)
            told, advice = NOT_DELIVERED[content.verdict]
            return (
                f"This is not delivered: {told}{f' ({client})' if client else ''}. "
                f"The policy delivers: {', '.join(settings.deliver)} (deliver). {advice}"
            )
        if content.verdict == CLIENT_BASED and content.share < settings.least_share:
            return (
                f"This is not delivered: of what the client brought ({', '.join(content.client_inputs)}) only "
                f"{content.share:.3g} of the noise range was sampled here; this server asks for "
                f"{settings.least_share:g} (least_share). Use a higher denoise."
            )
        return UNSEEN.format(" and ".join(unjudged)) if unjudged and settings.output_gate.unjudged == "refuse" else ""

    def _publish(self, file: Written, content: Content, unjudged: tuple[str, ...]) -> None:
        named = file if file.served else self._staging.free_name(file)
        record = seal(self._job, self._node_id, named.path, content, unjudged, self._signer)
        path = named.path if file.served else self._staging.publish(named)
        self._moved[file.path] = (named.kind, named.name)
        self._job.outputs[path] = OutputFile(path, content, record)

    def _past_staging(self, changes: Changes) -> list[Written]:
        """Files that the node has put into the served folders by itself.

        Raises:
            Refused: it has changed or deleted a file that was there, or has written where clients write.
        """
        if self._facts.name.startswith(OWN):  # permitted to write files of vectors and activations
            new = [path for path in changes.new if path.suffix.lower() in PICTURE_SUFFIXES]
            self._job.own_files |= set(changes.new) - set(new)
        else:
            new = unsigned(self._job, changes.new)
            told = CHANGED.format(printable(changes.changed[0].name)) if changes.changed else ""
            told = told or (STRAY.format(printable(changes.strays[0].name)) if changes.strays else "")
            if told:
                for path in (*new, *changes.strays):
                    remove(path)
                raise Refused(told, self._node_id)
        folders = {kind: self._staging.folder(kind) for kind in ("output", "temp")}
        return [
            Written(path, kind, path.relative_to(folder), served=True)
            for path in new
            for kind, folder in folders.items()
            if path.is_relative_to(folder)
        ]

    def _refuse_foreign(self, taken: Taken, output: Sequence[Any]) -> None:
        """A node that takes a model and gives pictures must have run a sampler, unless it is one of ComfyUI's own."""
        given = [value for values in taken.values.values() for value in values]
        models = any(isinstance(leaf, ModelPatcher) for value in given for leaf in leaves(value))
        if self._facts.is_core or self._job.flow.runs.get(self._node_id) or not models:
            return
        for values, kind in zip(output, self._facts.gives, strict=False):
            for value in values if isinstance(values, list) else ():
                if is_picture(value, kind) and not is_blank(value) and not same_object(value, given):
                    raise Refused(FOREIGN, self._node_id)

    def _told(
        self, output: Sequence[Any], shown: Mapping[str, Any], content: Content
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        ui = {name: self._staging.told(entries, self._moved) for name, entries in shown.items()}
        published = {(kind, name.name) for kind, name in self._moved.values()}
        if self._dropped:
            for name, entries in ui.items():
                if isinstance(entries, list | tuple):
                    ui[name] = [entry for entry in entries if not is_lost(entry, published)]
        ui = {name: without_names(entries, self._lost) for name, entries in ui.items()}
        if content:
            files = {name.name for _, name in self._moved.values()}
            for name, entries in ui.items():
                ui[name], dropped = without_numbers(entries, content.numbers, files)
                self._dropped += [NUMBERS] * dropped
        if self._dropped:
            note = self._job.told(self._dropped[0], self._node_id)
            self._job.dropped[self._node_id] = note
            ui["text"] = [*ui.get("text", ()), note]
        elif ui and not self._moved:
            self._job.showed_words = True
        told: Any = [[self._staging.told(value, self._moved) for value in values] for values in output]
        return (told if self._moved and not any(isinstance(values, tuple) for values in output) else output), ui


def _listed(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list | tuple) else ()


def _pictures(taken: Taken) -> Content:
    return union(
        content
        for name, content in taken.contents.items()
        if name not in taken.values or any(carries_pictures(value) for value in taken.values[name])
    )


def _all_words(taken: Taken) -> bool:
    """Whether the texts that were made from pictures read as words."""
    return not any(
        content.numbers or spells_picture(value)
        for name, content in taken.contents.items()
        if content
        for value in taken.values.get(name, ())
        if isinstance(value, str)
    )


def _is_gated(job: Job, facts: NodeFacts) -> bool:
    return job.is_gated and not facts.names & WITHOUT_FRAMES


def unsigned(job: Job, paths: Iterable[Path]) -> list[Path]:
    """Those of these files that are no signed outputs of the job, no records of these, and not of our own nodes."""
    signed = {file for path in job.outputs for file in (path, sidecar_of(path))}
    return [path for path in paths if path not in signed | job.own_files]


def remove(path: Path) -> None:
    """Delete a file that must not be delivered, and its evidence."""
    for file in (path, sidecar_of(path)):
        file.unlink(missing_ok=True)
