"""What a guarded server answers over HTTP: a refused graph at once, no to what would change it, status and metrics."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ...guardrail.errors import MetricsError
from ...safety_steering.errors import SafetySteeringError

if TYPE_CHECKING:
    from .guarded_server import GuardedServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROMPT = "/prompt"
UPLOADS = ("/upload/image", "/upload/mask")
# Where clients may write. Packs and core's managers offer more: installing packs, putting files among the models.
WRITABLE = {
    PROMPT,
    *UPLOADS,
    "/queue",
    "/interrupt",
    "/free",
    "/history",
    "/api/jobs/{job_id}/cancel",
    "/api/jobs/cancel",
    "/userdata/{file}",
    "/userdata/{file}/move/{dest}",
    "/settings",
    "/settings/{id}",
    "/users",
    "/internal/logs/subscribe",
}
READING = {"GET", "HEAD", "OPTIONS"}
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


def add_routes(guarded: GuardedServer) -> None:
    """Put the guardrail in front of core's routes, before the server starts to listen."""
    from server import PromptServer

    server = PromptServer.instance
    server.app.middlewares.append(_middleware(guarded))
    server.routes.get("/safety_steering/status")(_status(guarded))
    server.routes.get("/metrics")(_metrics(guarded))


def _middleware(guarded: GuardedServer) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method in READING:
            return await handler(request)
        route = _route_of(request)
        if route not in WRITABLE:
            return web.Response(status=403, text="This server does not take that from clients.")
        if route in UPLOADS and (await request.post()).get("type", "input") != "input":
            return web.Response(status=403, text="Uploads go to the input folder only.")
        if route == PROMPT and (refusal := await _refusal(guarded, request)):
            return refusal
        return await handler(request)

    return guard


def _route_of(request: web.Request) -> str:
    """The route that aiohttp has chosen, without the /api that core puts before each."""
    resource = request.match_info.route.resource
    route = resource.canonical if resource else ""
    return route if route in WRITABLE else route.removeprefix("/api")


async def _refusal(guarded: GuardedServer, request: web.Request) -> web.Response | None:
    """What a graph that this server does not run is answered with; None if it runs."""
    try:
        prompt = (await request.json()).get("prompt", {})
    except (ValueError, AttributeError, RecursionError):
        return _refused("This is no JSON object with a prompt.", "")
    try:
        await asyncio.get_running_loop().run_in_executor(None, guarded.admit, prompt)
    except SafetySteeringError as error:
        return _refused(str(error), str(getattr(error, "node_id", "")), prompt)
    return None


def _refused(sentence: str, node_id: str, prompt: Any = None) -> web.Response:
    """Status 400 in the form that core's own refusals have, so that every client shows it."""
    error = {"type": "safety_steering_refused", "message": sentence, "details": "", "extra_info": {}}
    node = prompt.get(node_id) if isinstance(prompt, dict) else None
    class_type = str(node.get("class_type", "")) if isinstance(node, dict) else ""
    at_node = {"errors": [error], "dependent_outputs": [], "class_type": class_type}
    return web.json_response({"error": error, "node_errors": {node_id: at_node} if node_id else {}}, status=400)


def _status(guarded: GuardedServer) -> Handler:
    async def status(request: web.Request) -> web.Response:
        if not _may_look(guarded, request):
            return web.Response(status=403, text="The status is for the operator of this server.")
        return web.json_response(await asyncio.get_running_loop().run_in_executor(None, state_of, guarded))

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
    if not any(name in request.headers for name in FORWARDED) and _is_loopback(request.remote):
        return True
    try:
        name = guarded.store.current().settings.status.token_environment
    except SafetySteeringError:
        return False
    token = os.environ.get(name, "") if name else ""
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return bool(token) and secrets.compare_digest(given.encode(), token.encode())


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False
