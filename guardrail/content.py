"""What a value of a guarded job is made of: which sampler runs made it, and what came from the client past them.

A node's result is made of all that went into the node. Only what a guarded sampler run returns is made by the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from .job_record import CLIENT_BASED, MIXED, NO_RULE, NOT_SAMPLED, STEERED

WHOLE = 0.99  # of the noise: a run that begins there keeps nothing of its latents
CLOSE = 0.01

Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class SamplerRun:
    """One guarded run, with what went into it.

    number, job: tell runs apart. steered: a rule applied, also in the runs before it. vectors: content sha256.
    client: the client's pictures that went into it. spans: parts of the noise range (0 clean, 1 pure noise) that
    guarded runs removed since the client's latents. calls, steered_calls, cached_calls: of the model.
    """

    number: int
    steered: bool
    job: str = ""
    vectors: tuple[str, ...] = ()
    client: frozenset[str] = frozenset()
    spans: Spans = ((0.0, 1.0),)
    calls: int = 0
    steered_calls: int = 0
    cached_calls: int = 0

    @property
    def share(self) -> float:
        """The share of the noise range that was removed by guarded runs: 1 for a whole run."""
        return share_of(self.spans)


def share_of(spans: Spans) -> float:
    """The share of the noise range that is in any of these parts of it."""
    covered, end = 0.0, 0.0
    for low, high in sorted(spans):
        covered += max(0.0, high - max(low, end))
        end = max(end, high)
    return 1.0 if covered >= WHOLE else covered


def continued(former: Spans, span: tuple[float, float]) -> Spans:
    """What runs removed in all: a run goes on where the former ended; from a higher level it begins anew, and then the
    larger counts."""
    if not former or span[1] <= min(low for low, _ in former) + CLOSE:
        return (*former, span)
    return former if share_of(former) >= share_of((span,)) else (span,)


@dataclass(frozen=True)
class Content:
    """runs: the guarded runs that it comes from. client: sources of pictures past all runs, as `node (class)`.

    blank: an empty latent, which is a picture of nobody past all runs, and nothing at all inside one. numbers: there is
    a text in it that spells out a picture.
    """

    runs: frozenset[SamplerRun] = frozenset()
    client: frozenset[str] = frozenset()
    blank: bool = False
    numbers: bool = False

    def __or__(self, other: Content) -> Content:
        blank, numbers = self.blank or other.blank, self.numbers or other.numbers
        return Content(self.runs | other.runs, self.client | other.client, blank, numbers)

    def __bool__(self) -> bool:
        return bool(self.runs or self.client or self.blank)

    @property
    def verdict(self) -> str:
        """One of `job_record.VERDICTS`."""
        if not self.runs:
            return NOT_SAMPLED
        if self.client or self.blank:
            return MIXED
        if not all(run.steered for run in self.runs):
            return NO_RULE
        return CLIENT_BASED if any(run.client for run in self.runs) else STEERED

    @property
    def share(self) -> float:
        """The smallest share of the noise that the runs removed; 0 without a run."""
        return min((run.share for run in self.runs), default=0.0)

    @property
    def client_inputs(self) -> tuple[str, ...]:
        """Every picture of the client in it, in a run or past all runs."""
        return tuple(sorted(self.client.union(*(run.client for run in self.runs))))

    @property
    def vectors(self) -> tuple[str, ...]:
        """The vectors that acted in its runs."""
        ordered = sorted(self.runs, key=lambda run: (run.job, run.number))
        return tuple(dict.fromkeys(vector for run in ordered for vector in run.vectors))

    def counted(self) -> dict[str, int]:
        """Model calls, of these steered, and of these answered by a cache, over its runs."""
        names = ("calls", "steered_calls", "cached_calls")
        return {name: sum(getattr(run, name) for run in self.runs) for name in names}


NOTHING = Content()


def union(parts: Iterable[Content]) -> Content:
    """What is made of all of these."""
    return reduce(Content.__or__, parts, NOTHING)
