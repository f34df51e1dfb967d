"""What a server command says of an address where something else than ComfyUI answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from safety_steering_pack.commands.main import main


@pytest.fixture(params=["utf-8", "iso-8859-1", "utf-16"])
def page(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a login page in some encoding."""
    content = "<html>Identifiez-vous, s'il vous plaît</html>".encode(request.param)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_login_page_in_any_encoding_is_one_sentence(page: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["capture", "--model", "a", "--text-encoder", "b", "--server", page]) == 1
    told = capsys.readouterr().err
    assert f"No ComfyUI server answers at {page}: the answer is a page. If it is a login page: Put its token" in told
