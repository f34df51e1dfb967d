"""One process a core, gradients averaged once a step.

For models this small two single-threaded processes beat one process with two threads: cores meet once a step instead
of a thousand times, so a busy neighbour costs its share of the machine and no more.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import torch


def run_on_all_cores(work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(rank, world, *arguments)` in one process per core, joined in a process group; return when all end."""
    world = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_join, (world, f"file://{folder}/meeting", work, arguments), nprocs=world)


def _join(rank: int, world: int, meeting: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    from datetime import timedelta

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    # A run may be stopped and continued (SIGSTOP) for long: never give up on a silent partner.
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=world, timeout=timedelta(hours=12)
    )
    try:
        work(rank, world, *arguments)
    finally:
        torch.distributed.destroy_process_group()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes; parameters without a gradient are left alone."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for gradient, averaged in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(averaged.view_as(gradient))
