"""A real ComfyUI server with this pack in it, in its own folder, that always ends.

with ComfyServer(base_directory) as server:
    run = server.client.run(prompt).succeeded()
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from comfy_tree import REPO_ROOT, comfyui_path
from safety_steering_pack.commands.comfy_client import ComfyClient, Run

PACK_FOLDER = "ComfyUI-Safety-Steering"
DEV_FOLDER = "safety_steering_development"
# Ends the server's process group as soon as its own standard input closes, however this process dies.
WATCHDOG = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGKILL)"


class ServerFailed(Exception):
    """The server did not start or died; the message ends with the tail of its log."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_taken(port: int) -> bool:
    """Whether a program listens on this port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def link_pack(custom_nodes: Path, folder: str, source: Path) -> None:
    """Put a node pack where ComfyUI looks for packs, as a link, so that it runs the files of this checkout."""
    link = custom_nodes / folder
    if link.is_symlink():
        link.unlink()
    link.symlink_to(source, target_is_directory=True)


class ComfyServer:
    """Context manager around one server process. ``client`` talks to it; all it writes is in ``base_directory``."""

    def __init__(
        self,
        base_directory: Path,
        *,
        dev_nodes: bool = True,
        port: int | None = None,
        arguments: tuple[str, ...] = (),
        start_timeout: float = 180.0,
    ) -> None:
        """``dev_nodes`` adds ``demo/dev_nodes``; ``port`` None takes a free one; ``arguments`` go to main.py."""
        self.base_directory = base_directory.resolve()
        self.port = port or free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.client = ComfyClient(self.address, self.check)
        self._dev_nodes = dev_nodes
        self._arguments = arguments
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id, which is also its process group's. Raises ServerFailed when it is not running."""
        self.check()
        assert self._process is not None
        return self._process.pid

    @property
    def models(self) -> Path:
        return self.base_directory / "models"

    @property
    def log_file(self) -> Path:
        return self.base_directory / "server.log"

    def log(self) -> str:
        """All that the server has printed so far, without terminal colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log_file.read_text(encoding="utf-8", errors="replace"))

    def output_file(self, shown: dict[str, Any]) -> Path:
        """The file behind one entry of a node's output, such as ``run.outputs[id]["images"][0]``."""
        return self.base_directory / shown["type"] / shown.get("subfolder", "") / shown["filename"]

    def output_files(self, run: Run) -> tuple[Path, ...]:
        """Every file that a run's nodes saved or previewed."""
        shown = [entry for output in run.outputs.values() for entries in output.values() for entry in entries]
        return tuple(self.output_file(entry) for entry in shown if isinstance(entry, dict) and "filename" in entry)

    def check(self) -> None:
        """Raises ServerFailed when the process is not running."""
        if self._process is None or self._process.poll() is not None:
            code = None if self._process is None else self._process.returncode
            raise ServerFailed(self._with_log(f"the ComfyUI server is not running (exit code {code})"))

    def _with_log(self, message: str) -> str:
        tail = self.log().splitlines()[-60:] if self.log_file.exists() else []
        return "\n".join([f"{message}; log {self.log_file}:", *tail])

    def _prepare(self) -> dict[str, str]:
        """Make the folders and links; returns an environment in which nothing is written outside ``base_directory``."""
        home = self.base_directory / "home"
        for folder in ("custom_nodes", "models", "input", "output", "user", "home"):
            (self.base_directory / folder).mkdir(parents=True, exist_ok=True)
        link_pack(self.base_directory / "custom_nodes", PACK_FOLDER, REPO_ROOT)
        if self._dev_nodes:
            link_pack(self.base_directory / "custom_nodes", DEV_FOLDER, REPO_ROOT / "demo" / "dev_nodes")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return environment | {
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def start(self) -> ComfyServer:
        """Start the server and wait until it answers. Raises ServerFailed, also if another program has its port."""
        if is_taken(self.port):  # what answers there would be taken for this server
            raise ServerFailed(f"Port {self.port} is taken by another program. Stop that, or choose another port.")
        tree = comfyui_path()
        environment = self._prepare()
        command = [sys.executable, str(tree / "main.py"), "--cpu", "--disable-auto-launch", "--disable-api-nodes"]
        command += ["--base-directory", str(self.base_directory), "--port", str(self.port)]
        command += ["--database-url", f"sqlite:///{self.base_directory / 'user' / 'comfyui.db'}", *self._arguments]
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._watchdog = subprocess.Popen(
            [sys.executable, "-c", WATCHDOG, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self.stop)
        try:
            self._wait_until_it_answers()
            self.client.connect()
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while True:
            self.check()
            try:
                with urllib.request.urlopen(f"{self.address}/system_stats", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline:
                    raise ServerFailed(self._with_log(f"no answer within {self._start_timeout} s")) from None
                time.sleep(0.2)

    def stop(self) -> None:
        """End the server and everything it started; safe to call twice."""
        atexit.unregister(self.stop)
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            for signal_number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(self._process.pid, signal_number)
                    self._process.wait(timeout=10)
                    break
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()

    def __enter__(self) -> ComfyServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
