"""Requests of clients to a guarded server: which routes they reach, what a body may hold, and whose jobs they touch."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from aiohttp import web

from ...guardrail.envelope import EnvelopeError, check_body, check_prompt_body, parse_body
from ...guardrail.plain_text import shown, trimmed
from ...guardrail.policy_settings import Limits, Permits
from ...guardrail.tenants import ANONYMOUS, Tenants
from ...safety_steering.errors import SafetySteeringError
from .asked_files import asked_file, users_files
from .job_lists import HISTORY, JOBS, PAGES, QUEUE, own_jobs

if TYPE_CHECKING:
    from .guarded_server import GuardedServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROMPT = "/prompt"
UPLOADS = ("/upload/image", "/upload/mask")
JSON_ROUTES = {"/queue", "/interrupt", "/free", "/history", "/settings", "/settings/{id}", "/users"} | {
    "/api/jobs/cancel",
    "/internal/logs/subscribe",
}
CANCEL = "/api/jobs/{job_id}/cancel"
# Where clients may write. Packs and core's managers offer more: installing packs, putting files among the models.
WRITABLE = {PROMPT, *UPLOADS, *JSON_ROUTES, CANCEL, "/userdata/{file}", "/userdata/{file}/move/{dest}"}
FILE_ROUTES = {*UPLOADS, "/settings", "/settings/{id}", "/userdata/{file}", "/userdata/{file}/move/{dest}"}
ONE_JOB = {"/history/{prompt_id}": "prompt_id", "/api/jobs/{job_id}": "job_id", CANCEL: "job_id"}
BY_TENANT = {PROMPT, *JSON_ROUTES, *PAGES, *ONE_JOB}
# What clients of other machines may read. Core offers more: its log, the server's folders, its command line.
READABLE = {
    "/",
    "/ws",
    PROMPT,
    QUEUE,
    HISTORY,
    JOBS,
    *ONE_JOB,
    "/view",
    "/object_info",
    "/object_info/{node_class}",
    "/embeddings",
    "/models",
    "/models/{folder}",
    "/extensions",
    "/features",
    "/userdata",
    "/v2/userdata",
    "/userdata/{file}",
    "/settings",
    "/settings/{id}",
    "/users",
    "/i18n",
    "/workflow_templates",
    "/global_subgraphs",
    "/global_subgraphs/{id}",
    "/node_replacements",
    "/templates/{path}",
    "/safety_steering/vector",
    "/safety_steering/hook_points",
    # these two look at the token themselves
    "/safety_steering/status",
    "/metrics",
}
READING = {"GET", "HEAD", "OPTIONS"}
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
STREAMING = {"/", "/ws"}  # their answers may have begun when they fail
UNREADABLE = "ComfyUI could not take this request ({}). Check its fields, file names and encoding, which is UTF-8."
REFUSED_TYPE = "safety_steering_refused"


class Requests:
    """In front of core's routes. The methods run in the server's event loop."""

    def __init__(self, guarded: GuardedServer, queue: Any) -> None:
        self._guarded = guarded
        self._queue = queue
        self._tenants = Tenants()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer what clients may not do, and what core fails at; pass on the rest."""
        route = route_of(request)
        try:
            return await self._answer(request, handler, route)
        except web.HTTPException:
            raise
        except Exception as error:
            if route in STREAMING or route not in WRITABLE | READABLE:
                raise
            logging.warning("Safety Steering: ComfyUI could not take a request (%s): %s", route, type(error).__name__)
            return refusal(UNREADABLE.format(type(error).__name__))

    async def _answer(self, request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
        if route in BY_TENANT:  # a policy that names them another way is in force at once
            await asyncio.get_running_loop().run_in_executor(None, self._guarded.problem)
        tenant = self._tenant(request)
        if request.method in READING:
            return await self._read(request, handler, route, tenant)
        if route not in WRITABLE or (tenant is not None and route.startswith("/internal")):
            return _forbidden("This server does not take that from clients.")
        if route in UPLOADS and (await request.post()).get("type", "input") != "input":
            return _forbidden("Uploads go to the input folder only.")
        try:
            if route == PROMPT:
                return await self._prompt(request, handler, tenant)
            if route in JSON_ROUTES:
                body = await _body_of(request, route)
                check_body(route, body)
                if not self._may_touch(route, body, tenant):
                    return _forbidden("That touches jobs of other clients. Name your own.")
            elif route in ONE_JOB and not self._tenants.owns(tenant, request.match_info[ONE_JOB[route]]):
                return _forbidden("That touches a job of another client. Name your own.")
        except EnvelopeError as error:
            return refusal(str(error))
        return await (self._write(request, handler, route) if route in FILE_ROUTES else handler(request))

    async def _write(self, request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
        """Let a handler write files, and note which: a node that runs meanwhile has not written them."""
        if route not in UPLOADS:
            await request.read()  # so that the handler does not wait for it
        with self._guarded.folders.writes.writing() as paths:
            paths += users_files(request, route)
            answer = await handler(request)
            if route in UPLOADS and isinstance(answer, web.Response) and answer.status == 200:
                told = json.loads(answer.body)
                paths.append(Path(folder_paths.get_input_directory()) / told["subfolder"] / told["name"])
            return answer

    async def _read(self, request: web.Request, handler: Handler, route: str, tenant: str | None) -> web.StreamResponse:
        if (path := asked_file(request, route)) and not await _may_view(self._guarded, path):
            return web.Response(status=404, text="No record knows this file, so it is not shown.")
        if tenant is None:
            return await handler(request)
        if not _is_readable(request, route):
            return _forbidden("This server does not show that to clients.")
        job_id = request.match_info.get(ONE_JOB.get(route, ""))
        if job_id and tenant != ANONYMOUS and not self._tenants.owns(tenant, job_id):
            return web.json_response({})  # a client without a name may read a job whose id it knows
        if route in PAGES:
            return await own_jobs(request, handler, route, lambda job: self._tenants.owns(tenant, job))
        return await handler(request)

    def _may_touch(self, route: str, body: Any, tenant: str | None) -> bool:
        """Whether all jobs that a body names, or means by naming none, are the client's own."""
        if tenant is None or route not in (QUEUE, HISTORY, "/interrupt", "/api/jobs/cancel"):
            return True
        named = [*(body.get("delete") or []), *(body.get("job_ids") or [])]
        if route == "/interrupt":
            running = [job[1] for job in self._queue.get_current_queue_volatile()[0]]
            named = [body["prompt_id"]] if body.get("prompt_id") else running
        if tenant == ANONYMOUS:
            return not body.get("clear") and (route != "/interrupt" or bool(body.get("prompt_id")))
        return not body.get("clear") and all(self._tenants.owns(tenant, prompt_id) for prompt_id in named)

    async def _prompt(self, request: web.Request, handler: Handler, tenant: str | None) -> web.StreamResponse:
        """`POST /prompt`: check the body, the queue and the graph, and note whose job it is."""
        limits, permits = self._settings()
        data = await request.read()
        body: Any = None
        try:
            if len(data) > limits.prompt_megabytes * 1024**2:
                raise EnvelopeError(
                    f"The prompt has {len(data) / 1024**2:.1f} MB; this server takes {limits.prompt_megabytes:g} "
                    "(limits.prompt_megabytes). Upload large files instead of sending them in the graph."
                )
            body = parse_body(data)
            check_prompt_body(body)
            self._check_turn(body, permits)
            waiting = [job[1] for job in self._queue.get_current_queue_volatile()[1]]
            with self._tenants.entering(tenant, waiting, limits), self._reserved(body.get("prompt_id"), tenant):
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, self._guarded.admit, body["prompt"])
                answer = await handler(request)
                told = json.loads(answer.body) if isinstance(answer, web.Response) and answer.body else {}
                if answer.status != 200:
                    self._tenants.forget(str(body.get("prompt_id")))
                    return web.json_response(_without_echoes(told), status=answer.status)
                self._tenants.note(told["prompt_id"], tenant)
                return answer
        except SafetySteeringError as error:
            if isinstance(error, EnvelopeError):
                self._guarded.write_refusal("", str(error))
            return refusal(str(error), str(getattr(error, "node_id", "")), body)

    def _check_turn(self, body: Any, permits: Permits) -> None:
        """The job's id is new, and it does not ask to go before others."""
        from server import PromptServer

        prompt_id = body.get("prompt_id")
        if prompt_id and (self._tenants.knows(prompt_id) or self._is_known(prompt_id)):
            raise EnvelopeError(f"The prompt_id {prompt_id} was used before. Leave it out, or send a new UUID.")
        ahead = body.get("front") or body.get("number", PromptServer.instance.number) < PromptServer.instance.number
        if ahead and not permits.jump_queue:
            raise EnvelopeError(
                "Jumping the queue is not permitted here (permits.jump_queue). Leave out front and number."
            )

    def _is_known(self, prompt_id: str) -> bool:
        running, queued = self._queue.get_current_queue_volatile()
        return prompt_id in self._queue.history or any(job[1] == prompt_id for job in (*running, *queued))

    @contextmanager
    def _reserved(self, prompt_id: str | None, tenant: str | None) -> Iterator[None]:
        """Takes an id before anything is awaited, so that no second request can; gives it back after a refusal."""
        if prompt_id:
            self._tenants.note(prompt_id, tenant)
        try:
            yield
        except BaseException:
            if prompt_id:
                self._tenants.forget(prompt_id)
            raise

    def _settings(self) -> tuple[Limits, Permits]:
        policy = self._guarded.store.last
        return (policy.settings.limits, policy.settings.permits) if policy else (Limits(), Permits())

    def _tenant(self, request: web.Request) -> str | None:
        """Who sends a request: None for this machine itself, else a name, or ANONYMOUS."""
        header = self._settings()[0].tenant_header
        named = request.headers.get(header, "") if header else ""
        if named:
            return shown(named)
        return None if is_local(request) else ANONYMOUS


def route_of(request: web.Request) -> str:
    """The route that aiohttp has chosen, without the /api that core puts before each."""
    resource = request.match_info.route.resource
    route = resource.canonical if resource else ""
    return route if route in WRITABLE | READABLE else route.removeprefix("/api") or "/"


def is_local(request: web.Request) -> bool:
    """Whether a request comes from this machine, and not through a proxy on it."""
    if any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


def _is_readable(request: web.Request, route: str) -> bool:
    """A listed route, or a file of the frontend, of a pack's frontend or of the documentation."""
    from aiohttp.web_urldispatcher import StaticResource

    resource = request.match_info.route.resource
    return request.method == "OPTIONS" or route in READABLE or isinstance(resource, StaticResource)


async def _body_of(request: web.Request, route: str) -> Any:
    data = await request.read()
    return {} if route == "/interrupt" and not data.strip() else parse_body(data)


async def _may_view(guarded: GuardedServer, path: Path) -> bool:
    return await asyncio.get_running_loop().run_in_executor(None, guarded.may_view, path)


def _forbidden(sentence: str) -> web.Response:
    return web.Response(status=403, text=sentence)


def refusal(sentence: str, node_id: str = "", body: Any = None) -> web.Response:
    """Status 400 in the form that core's own refusals have, so that every client shows it."""
    prompt = body.get("prompt") if isinstance(body, dict) else None
    node = prompt.get(node_id) if isinstance(prompt, dict) else None
    class_type = shown(node.get("class_type", "")) if isinstance(node, dict) else ""
    error = {"type": REFUSED_TYPE, "message": sentence, "details": "", "extra_info": {}}
    at_node = {"errors": [error], "dependent_outputs": [], "class_type": class_type}
    return web.json_response({"error": error, "node_errors": {node_id: at_node} if node_id else {}}, status=400)


def _without_echoes(told: Any) -> Any:
    """Core's refusal of a graph with each of the client's texts cut, and without tracebacks: they name folders."""
    if isinstance(told, dict):
        drop = ("traceback", "received_value", "exception_message", "input_config", "linked_node")
        return trimmed({name: _without_echoes(value) for name, value in told.items() if name not in drop}, depth=16)
    return [_without_echoes(value) for value in told] if isinstance(told, list) else told
