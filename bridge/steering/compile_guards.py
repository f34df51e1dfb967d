"""Makes torch.compile notice hooks that come after a graph was compiled.

A whole-model compile otherwise goes on running a graph that lacks our hooks: `skip_nnmodule_hook_guards` must be off.
Newer torch keeps what is assigned to its config for the assigning thread alone, and ComfyUI samples in another one
than it imports us in; the setting's default is what all threads see.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

import torch
import torch._dynamo.config as config

NAME = "skip_nnmodule_hook_guards"


def guard_hooks() -> None:
    """Turn the guards on in every thread; a torch that does not let us is warned of.

    Without them nothing passes silently either: a graph that lacks our hooks fires none, and the run stops with
    NotSteeredError.
    """
    setattr(config, NAME, False)
    if _seen_by_another_thread() is False:
        return
    with suppress(AttributeError, KeyError):
        config._config[NAME].default = False  # there is no public way to set it for threads that are not ours
    if _seen_by_another_thread() is not False:
        logging.warning(
            "Safety Steering: torch %s keeps %s on. A model that torch.compile has seen without Apply Safety Steering "
            "stops with an error when Apply is added, until ComfyUI is restarted. Please report this torch version.",
            torch.__version__,
            NAME,
        )


def _seen_by_another_thread() -> object:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(getattr(config, NAME)))
    thread.start()
    thread.join()
    return seen[0]
