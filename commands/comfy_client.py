"""Talks to a running ComfyUI server: submits API prompts, follows them over the websocket, returns frozen results.

Needs aiohttp, which ComfyUI brings. The graph itself is plain data: node id -> class_type and inputs.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..safety_steering.errors import SafetySteeringError

LAST_EVENTS = 2.0  # seconds to wait for a prompt's last websocket events


class PromptRejected(SafetySteeringError):
    """The server's validation refused a prompt: ``error`` is its reason, ``node_errors`` its reasons by node id."""

    def __init__(self, error: Any, node_errors: dict[str, Any]) -> None:
        super().__init__(f"ComfyUI rejected the prompt: {json.dumps(error)} {json.dumps(node_errors)}")
        self.error = error
        self.node_errors = node_errors


@dataclass(frozen=True)
class ExecutionError:
    """What one node raised."""

    node_id: str
    node_type: str
    exception_type: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Run:
    """One finished prompt as the server tells it.

    ``status`` is "success", "error" or "interrupted"; ``outputs`` maps node id to what the node showed (files, text);
    ``events`` are the websocket messages about this prompt, in order; ``history`` is the raw entry.
    """

    prompt_id: str
    status: str
    outputs: dict[str, dict[str, Any]]
    error: ExecutionError | None
    node_errors: dict[str, Any]
    cached_nodes: frozenset[str]
    events: tuple[dict[str, Any], ...]
    history: dict[str, Any]

    def succeeded(self) -> Run:
        """This run, if it succeeded. Raises RuntimeError with the failing node and its traceback if not."""
        if self.error is not None:
            raise RuntimeError(
                f"{self.error.node_type} (node {self.error.node_id}) raised {self.error.exception_type}: "
                f"{self.error.message}\n{self.error.traceback}"
            )
        if self.status != "success" or self.node_errors:
            raise RuntimeError(f"The run ended with status {self.status!r}; node errors: {self.node_errors}")
        return self

    def text(self, node_id: str) -> str:
        """The text a node showed. Raises KeyError when it showed none."""
        shown = self.outputs[node_id]["text"]
        return shown if isinstance(shown, str) else "".join(shown)


def _run_of(prompt_id: str, history: dict[str, Any], node_errors: dict[str, Any], events: list[dict[str, Any]]) -> Run:
    messages = history.get("status", {}).get("messages", [])
    by_name = dict(messages)
    status = history.get("status", {}).get("status_str", "unknown")
    error = None
    if "execution_error" in by_name:
        data = by_name["execution_error"]
        error = ExecutionError(
            node_id=str(data["node_id"]),
            node_type=data["node_type"],
            exception_type=data["exception_type"],
            message=data["exception_message"],
            traceback="".join(data["traceback"]),
        )
    return Run(
        prompt_id=prompt_id,
        status="interrupted" if "execution_interrupted" in by_name else status,
        outputs=history.get("outputs", {}),
        error=error,
        node_errors=node_errors,
        cached_nodes=frozenset(by_name.get("execution_cached", {}).get("nodes", [])),
        events=tuple(events),
        history=history,
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it mostly leads to a login page, and would take the headers to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


class ComfyClient:
    """A synchronous client of one server, with one websocket listening in a background thread."""

    def __init__(
        self, address: str, is_alive: Callable[[], None] = lambda: None, headers: Mapping[str, str] | None = None
    ) -> None:
        """``address`` is ``http://host:port``, with a path if the server is behind one; ``is_alive`` raises when the
        server's process is gone; ``headers`` go with every request.
        """
        self.address = address.rstrip("/")
        self._headers = dict(headers or {})
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._is_alive = is_alive
        self._client_id = uuid.uuid4().hex
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._node_errors: dict[str, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._connected = threading.Event()
        self._failure: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._listener = threading.Thread(target=self._listen, name="comfy-websocket", daemon=True)

    def connect(self, timeout: float = 30.0) -> None:
        """Open the websocket. Raises ConnectionError when it is refused, TimeoutError when it is not open in time."""
        self._listener.start()
        if not self._connected.wait(timeout):
            raise TimeoutError(f"no websocket connection to {self.address} within {timeout} s")
        if self._failure is not None:
            raise ConnectionError(f"its websocket refuses: {self._failure}")

    def close(self) -> None:
        if self._listener.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._listener.join(timeout=10)

    def _listen(self) -> None:
        self._task = self._loop.create_task(self._read_messages())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # told by connect(); later on, only progress is lost
            self._failure = error
            self._connected.set()
        finally:
            self._loop.close()

    async def _read_messages(self) -> None:
        import aiohttp

        address = f"{self.address}/ws?clientId={self._client_id}"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(address, headers=self._headers, max_msg_size=0) as socket,
        ):
            self._connected.set()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    self._store(json.loads(message.data))

    def _store(self, event: dict[str, Any]) -> None:
        prompt_id = (event.get("data") or {}).get("prompt_id")
        if prompt_id is not None:
            with self._news:
                self._events.setdefault(prompt_id, []).append(event)
                self._news.notify_all()

    def request(self, path: str, payload: Mapping[str, Any] | None = None) -> Any:
        """GET ``path``, or POST ``payload`` to it as JSON; returns the decoded JSON (None for an empty body)."""
        body = None if payload is None else json.dumps(payload).encode()
        headers = {"Content-Type": "application/json", **self._headers}
        request = urllib.request.Request(self.address + path, body, headers)
        with self._opener.open(request, timeout=60) as response:
            text = response.read()
        return json.loads(text.decode(errors="replace")) if text else None  # a page may be in any encoding

    def submit(self, prompt: Mapping[str, Any]) -> str:
        """Queue an API-format prompt and return its id at once. Raises PromptRejected."""
        try:
            answer = self.request("/prompt", {"prompt": prompt, "client_id": self._client_id})
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            refusal = json.loads(error.read())
            raise PromptRejected(refusal.get("error"), refusal.get("node_errors", {})) from None
        self._node_errors[answer["prompt_id"]] = answer["node_errors"]
        return str(answer["prompt_id"])

    def wait_for(self, prompt_id: str, event_type: str, timeout: float = 60.0) -> dict[str, Any]:
        """The data of the prompt's first websocket event of this type, for instance "progress". Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                for event in self._events.get(prompt_id, []):
                    if event["type"] == event_type:
                        return dict(event["data"])
                self._is_alive()
                if time.monotonic() > deadline:
                    seen = [event["type"] for event in self._events.get(prompt_id, [])]
                    raise TimeoutError(f"no {event_type!r} event within {timeout} s; seen: {seen}")
                self._news.wait(0.5)

    def result(
        self,
        prompt_id: str,
        timeout: float = 120.0,
        progress: Callable[[float, float], None] = lambda value, most: None,
    ) -> Run:
        """Wait until the prompt is done and return how it went. Raises TimeoutError.

        ``progress`` is told how far the node at work is, and what it counts to, whenever that changes.
        """
        deadline = time.monotonic() + timeout
        told: tuple[float, float] | None = None
        while True:
            reached = self._progress_of(prompt_id)
            if reached is not None and reached != told:
                told = reached
                progress(*reached)
            history = self.request(f"/history/{prompt_id}")
            if prompt_id in history:
                with self._news:
                    self._news.wait_for(lambda: self._has_ended(prompt_id), timeout=LAST_EVENTS)
                    events = list(self._events.get(prompt_id, []))
                return _run_of(prompt_id, history[prompt_id], self._node_errors[prompt_id], events)
            self._is_alive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"prompt {prompt_id} was not done within {timeout} s")
            with self._news:
                self._news.wait(0.1)

    def _has_ended(self, prompt_id: str) -> bool:
        """Whether the last websocket event of a prompt is here, or none came at all.

        The history may be read first: the websocket has a thread of its own.
        """
        events = self._events.get(prompt_id, [])
        return not events or any(e["type"] == "executing" and e["data"].get("node") is None for e in events)

    def _progress_of(self, prompt_id: str) -> tuple[float, float] | None:
        with self._news:
            events = [event["data"] for event in self._events.get(prompt_id, []) if event["type"] == "progress"]
        return (events[-1]["value"], events[-1]["max"]) if events else None

    def run(self, prompt: Mapping[str, Any], timeout: float = 120.0) -> Run:
        """Submit a prompt, wait, return how it went. Raises PromptRejected or TimeoutError; see ``Run.succeeded``."""
        return self.result(self.submit(prompt), timeout)

    def interrupt(self) -> None:
        """Stop the prompt that is running."""
        self.request("/interrupt", {})

    def free(self) -> None:
        """Ask the server to unload all models and forget cached node outputs before its next prompt."""
        self.request("/free", {"unload_models": True, "free_memory": True})

    def object_info(self, node_id: str | None = None) -> dict[str, Any]:
        """The server's node definitions, or one node's. Raises KeyError for a node the server does not know."""
        if node_id is None:
            return dict(self.request("/object_info"))
        return dict(self.request(f"/object_info/{node_id}")[node_id])
