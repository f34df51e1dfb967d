"""Which tenant sent which job, and how many of a tenant's jobs wait."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..safety_steering.errors import SafetySteeringError
from .policy_settings import Limits

MOST_REMEMBERED = 50_000  # jobs; more than core's history keeps
ANONYMOUS = ""


class Tenants:
    """The senders of jobs, by prompt id. Used in the server's event loop only."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, str] = OrderedDict()
        self._entering: list[str] = []

    def owns(self, tenant: str | None, prompt_id: str) -> bool:
        """Whether a job is the tenant's. None is the operator, who owns all; ANONYMOUS clients own none."""
        return tenant is None or (tenant != ANONYMOUS and self._of.get(prompt_id) == tenant)

    def knows(self, prompt_id: str) -> bool:
        """Whether a job of this id was sent before."""
        return prompt_id in self._of

    def note(self, prompt_id: str, tenant: str | None) -> None:
        """Remember who sent a job."""
        self._of[prompt_id] = ANONYMOUS if tenant is None else tenant
        while len(self._of) > MOST_REMEMBERED:
            self._of.popitem(last=False)

    def forget(self, prompt_id: str) -> None:
        """A job was not queued after all, so its id may be sent again."""
        self._of.pop(prompt_id, None)

    @contextmanager
    def entering(self, tenant: str | None, waiting: Iterable[str], limits: Limits) -> Iterator[None]:
        """While a job is checked and queued it counts as waiting. waiting: prompt ids of the queued jobs.

        Raises:
            SafetySteeringError: the queue is full, or the tenant's share of it.
        """
        queued = list(waiting)
        if len(queued) + len(self._entering) >= limits.queue:
            raise SafetySteeringError(
                f"{limits.queue} jobs wait already, and this server takes no more (limits.queue). Send it again later."
            )
        if tenant:
            own = sum(self._of.get(prompt_id) == tenant for prompt_id in queued) + self._entering.count(tenant)
            if own >= limits.per_tenant:
                raise SafetySteeringError(
                    f"{own} of your jobs wait already; this server queues {limits.per_tenant} for each client "
                    "(limits.per_tenant). Send it again when one has ended."
                )
        self._entering.append(tenant or ANONYMOUS)
        try:
            yield
        finally:
            self._entering.remove(tenant or ANONYMOUS)
