"""Makes torch.compile notice hooks that come after a graph was compiled.

A whole-model compile otherwise goes on running a graph that lacks our hooks: `skip_nnmodule_hook_guards` must be off.
Newer torch keeps what is assigned to its config for the assigning thread alone, and ComfyUI samples in another one
than it imports us in; the setting's default is what all threads see.
"""

from __future__ import annotations

import threading

import torch
import torch._dynamo.config as config

NAME = "skip_nnmodule_hook_guards"


def guard_hooks() -> None:
    """Turn the guards on in every thread.

    Raises:
        RuntimeError: this torch does not let us; a compiled model could then run unsteered.
    """
    setattr(config, NAME, False)
    if _seen_by_another_thread() is not False:
        config._config[NAME].default = False  # there is no public way to set it for threads that are not ours
    if _seen_by_another_thread() is not False:
        raise RuntimeError(
            f"torch {torch.__version__} keeps {NAME} from being turned off, so torch.compile could ignore steering. "
            "Please report this torch version to Safety Steering."
        )


def _seen_by_another_thread() -> object:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(getattr(config, NAME)))
    thread.start()
    thread.join()
    return seen[0]
