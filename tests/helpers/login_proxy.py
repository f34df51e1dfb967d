"""A reverse proxy with a login and a path prefix, as hosts put one in front of ComfyUI."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

import aiohttp
from aiohttp import web

PREFIX = "/comfy"


class LoginProxy:
    """Passes requests and websockets under `PREFIX` on to a server, if they bear the header; counts what it refused.

    login: "401", or "redirect" to a page on another address, whose requests are counted in `followed`.
    """

    def __init__(self, server: str, header: tuple[str, str], login: str = "401") -> None:
        self._server, self._header, self._login = server, header, login
        self.passed = self.refused = self.followed = 0
        self.sockets = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> LoginProxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/login", self._login_page)
        app.router.add_route("*", PREFIX + "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.address = f"http://127.0.0.1:{port}{PREFIX}"
        self._page = f"http://localhost:{port}/login?next=secret"

    async def _login_page(self, request: web.Request) -> web.Response:
        self.followed += 1
        return web.Response(text="<html>Who are you?</html>", content_type="text/html")

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        name, value = self._header
        if request.headers.get(name) != value:
            self.refused += 1
            if self._login == "redirect":
                raise web.HTTPFound(self._page)
            return web.Response(status=401, text="no")
        self.passed += 1
        target = f"{self._server}/{request.match_info['path']}?{request.query_string}"
        async with aiohttp.ClientSession() as session:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._bridge(request, session, target)
            async with session.request(
                request.method, target, data=await request.read(), headers={"Content-Type": "application/json"}
            ) as answer:
                body = await answer.read()
                return web.Response(status=answer.status, body=body, content_type=answer.content_type)

    async def _bridge(self, request: web.Request, session: aiohttp.ClientSession, target: str) -> web.WebSocketResponse:
        self.sockets += 1
        outer = web.WebSocketResponse()
        await outer.prepare(request)
        async with session.ws_connect(target, max_msg_size=0) as inner:

            async def close_with_the_client() -> None:
                async for _ in outer:
                    pass
                await inner.close()

            watching = asyncio.ensure_future(close_with_the_client())
            async for message in inner:
                if message.type == aiohttp.WSMsgType.TEXT:
                    await outer.send_str(message.data)
            watching.cancel()
        return outer
