"""The routes that a guarded server adds, status and metrics, and the guard in front of core's routes."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ...guardrail.errors import MetricsError
from ...safety_steering.errors import SafetySteeringError
from .requests import Requests, is_local

if TYPE_CHECKING:
    from .guarded_server import GuardedServer

NOT_SERVING = 503  # Service Unavailable, by which a load balancer leaves a server out

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_routes(guarded: GuardedServer) -> None:
    """Put the guardrail in front of core's routes, before the server starts to listen."""
    from server import PromptServer

    server = PromptServer.instance
    server.app.middlewares.append(Requests(guarded, server.prompt_queue).guard)
    server.routes.get("/safety_steering/status")(_status(guarded))
    server.routes.get("/metrics")(_metrics(guarded))


def _status(guarded: GuardedServer) -> Handler:
    async def status(request: web.Request) -> web.Response:
        if not _may_look(guarded, request):
            return web.Response(status=403, text="The status is for the operator of this server.")
        state = await asyncio.get_running_loop().run_in_executor(None, state_of, guarded)
        return web.json_response(state, status=200 if state["serving"] else NOT_SERVING)

    return status


def _metrics(guarded: GuardedServer) -> Handler:
    async def metrics(request: web.Request) -> web.Response:
        if not _may_look(guarded, request):
            return web.Response(status=403, text="The metrics are for the operator of this server.")
        try:
            body, content_type = guarded.metrics.render()
        except MetricsError as error:
            return web.Response(status=501, text=str(error))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return metrics


def state_of(guarded: GuardedServer) -> dict[str, Any]:
    """The guardrail's state as plain data. `serving` is what a load balancer asks for."""
    problem = guarded.problem()
    state: dict[str, Any] = {
        "guarded": True,
        "serving": not problem,
        "problem": problem,
        "key_id": guarded.signer.key_id if guarded.signer else None,
        "public_key": guarded.signer.public_key if guarded.signer else None,
        "counts": guarded.metrics.counts(),
    }
    if not problem:
        policy = guarded.store.current()
        rules = [
            {"name": rule.name, "vector": rule.vector.sha256, "hook_points": list(rule.hook_points)}
            for rule in policy.rules
        ]
        state["policy"] = {"sha256": policy.sha256, "rules": rules}
    return state


def _may_look(guarded: GuardedServer, request: web.Request) -> bool:
    """Whether a request comes from this machine itself, not through a proxy on it, or bears the operator's token."""
    if is_local(request):
        return True
    try:
        name = guarded.store.current().settings.status.token_environment
    except SafetySteeringError:
        return False
    token = os.environ.get(name, "") if name else ""
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return bool(token) and secrets.compare_digest(given.encode(), token.encode())
