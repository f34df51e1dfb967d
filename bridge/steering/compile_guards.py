"""Makes torch.compile notice hooks that are added after a graph was compiled.

With `skip_nnmodule_hook_guards` on, a compiled model goes on running a graph without our hooks. Newer torch keeps an
assigned setting for the assigning thread alone, and ComfyUI imports us in one thread and samples in another; the
default of the setting holds for all threads.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

import torch
import torch._dynamo.config as config

NAME = "skip_nnmodule_hook_guards"


def guard_hooks() -> None:
    """Turn the guards on in every thread; log a warning if this torch does not allow it.

    A compiled graph without our hooks never passes silently: no hook fires, and the run stops with NotSteeredError.
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
