"""Core's lists of jobs as one client may see them: its own jobs alone, counted and cut into pages among themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

HISTORY, JOBS, QUEUE = "/history", "/api/jobs", "/queue"
PAGES = {HISTORY: ("max_items", "offset"), JOBS: ("limit", "offset"), QUEUE: ()}


async def own_jobs(
    request: web.Request,
    handler: Callable[[web.Request], Any],
    route: str,
    mine: Callable[[str], bool],
) -> web.StreamResponse:
    """Core's answer to a request for a list of jobs, without those that are not `mine`."""
    query, names = request.rel_url.query, PAGES[route]
    whole = request.rel_url.with_query({name: value for name, value in query.items() if name not in names})
    answer: web.StreamResponse = await handler(request.clone(rel_url=whole))
    if not isinstance(answer, web.Response) or answer.status != 200 or not isinstance(answer.body, bytes):
        return answer
    listed = json.loads(answer.body)
    if route == QUEUE:
        return web.json_response({name: [job for job in jobs if mine(job[1])] for name, jobs in listed.items()})
    most, first = (int(query[name]) if name in query else None for name in names)
    if route == HISTORY:
        return web.json_response(_page_of_history([item for item in listed.items() if mine(item[0])], most, first))
    return web.json_response(
        _page_of_jobs([job for job in listed["jobs"] if mine(job["id"])], most, max(0, first or 0))
    )


def _page_of_history(jobs: list[tuple[str, Any]], most: int | None, first: int | None) -> Mapping[str, Any]:
    """As core cuts its history: the last `most` jobs, or `most` from `first` on."""
    if first is None or first < 0:
        first = max(0, len(jobs) - most) if most is not None else 0
    return dict(jobs[first : None if most is None else first + most])


def _page_of_jobs(jobs: list[Any], most: int | None, first: int) -> Mapping[str, Any]:
    page = jobs[first : None if most is None else first + most]
    more = first + len(page) < len(jobs)
    return {"jobs": page, "pagination": {"offset": first, "limit": most, "total": len(jobs), "has_more": more}}
