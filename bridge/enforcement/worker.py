"""Core's only worker, which runs the jobs: whether it lives, and what could end it or the server from outside a job."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from ...safety_steering.errors import SafetySteeringError
from .choke_points import Wrap

EXIT_CODE = 70
DEAD = "The worker of this server has died, so no job runs. Restart the server."


def end_process() -> None:
    """End the server at once, so that a supervisor restarts it."""
    logging.shutdown()
    os._exit(EXIT_CODE)


class Worker:
    """Watches the thread that takes jobs from the queue. `end` is called when that thread has died."""

    def __init__(self, end: Callable[[], None] = end_process) -> None:
        self._thread: threading.Thread | None = None
        self._end = end

    def wraps(self) -> dict[str, Wrap]:
        """Choke point -> what is put around its function."""
        return {"worker": self._around_get, "send": self._around_send}

    def check(self) -> None:
        """Raise SafetySteeringError if the worker has died. Before it takes its first job it is not known."""
        if self._thread is not None and not self._thread.is_alive():
            raise SafetySteeringError(DEAD)

    def _around_get(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def get(queue: Any, timeout: float | None = None) -> Any:
            if self._thread is not threading.current_thread():
                self._thread = threading.current_thread()
                threading.Thread(target=self._wait, args=(self._thread,), daemon=True).start()
            return original(queue, timeout)

        return get

    def _wait(self, worker: threading.Thread) -> None:
        worker.join()
        logging.critical("Safety Steering: %s This process ends now (exit code %d).", DEAD, EXIT_CODE)
        self._end()

    def _around_send(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def send(server: Any, event: Any, data: Any, sid: Any = None) -> None:
            try:
                await original(server, event, data, sid)
            except Exception:  # it would end core's loop that sends messages, and the process with it
                logging.exception("Safety Steering: a message to a client could not be sent")

        return send
