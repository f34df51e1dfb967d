"""Log lines of a guarded server: client text in them is escaped and cut, also in those that core writes."""

from __future__ import annotations

import logging
from typing import Any

from ...guardrail.plain_text import shown

LONGEST = 1000  # characters of a line; a traceback may have several
MOST_LINES = 60
TRACEBACK = "Traceback (most recent call last)"


class CleanRecord(logging.LogRecord):
    """A record whose message is one line, or the lines of a traceback."""

    def getMessage(self) -> str:
        """The message without control characters, and no longer than a reader needs."""
        message = super().getMessage()
        if len(message) <= LONGEST and message.isprintable():
            return message
        lines = message.splitlines() if TRACEBACK in message[:LONGEST] or self.name.startswith("safety") else [message]
        if self.levelno < logging.WARNING and len(message) <= LONGEST:
            lines = message.splitlines()  # what core tells of itself
        return "\n".join(shown(line, LONGEST) for line in lines[:MOST_LINES])


def clean_logs() -> None:
    """From now on every log line of this process is clean."""
    logging.setLogRecordFactory(CleanRecord)


def cleaned_error(data: dict[str, Any], hidden: tuple[str, ...]) -> dict[str, Any]:
    """What a failed job tells its client: the message cut, no traceback, no values. hidden: the server's folders.

    A pack's module has its folder as its name, so only the class of the error is told.
    """
    message = str(data.get("exception_message", ""))
    for folder in hidden:
        message = message.replace(folder, "...")
    lines = [shown(line, LONGEST) for line in message.splitlines()[:8]]
    kept = {"traceback": [], "current_inputs": {}, "exception_message": "\n".join(lines)}
    kept["exception_type"] = shown(str(data.get("exception_type", "")).rpartition(".")[2])
    return {**data, **{name: value for name, value in kept.items() if name in data}}
