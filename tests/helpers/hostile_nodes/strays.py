"""What nodes leave in folders that clients reach, past ComfyUI's own way of saving."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from .packs import _schema, _write


def _folder(kind: str) -> Path:
    folders = {
        "output": folder_paths.output_directory,
        "temp": folder_paths.temp_directory,
        "input": folder_paths.input_directory,
        "user": str(Path(folder_paths.get_user_directory()) / "default"),
    }
    return Path(folders[kind])


class Stray(io.ComfyNode):
    """Writes a picture into a folder by its path. how: what it does then, or what it writes instead."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = ("folder", "name", "how")
        inputs = [io.Image.Input("images"), *(io.String.Input(name) for name in names)]
        return _schema(cls, inputs, is_output_node=True, not_idempotent=True)

    @classmethod
    async def execute(cls, images: torch.Tensor, folder: str, name: str, how: str) -> io.NodeOutput:
        path = _folder(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if how == "announced link":
            path = Path(folder_paths.get_output_directory()) / name
            path.symlink_to(_folder("input") / "theirs.png")
            return io.NodeOutput(ui={"images": [{"filename": name, "subfolder": "", "type": "output"}]})
        if how == "link to a folder":
            path.symlink_to(_folder("input"))
        elif how == "delete":
            path.unlink()
        elif how == "wait":
            await asyncio.sleep(3)
        else:
            if how == "later":
                await asyncio.sleep(1.5)
            _write(images[0], path.with_suffix(".png"))
            if path.suffix != ".png":
                shutil.move(path.with_suffix(".png"), path)
            os.utime(path, (1, 1))
        if how == "raise":
            raise RuntimeError("after it has written")
        return io.NodeOutput()


class Busy(io.ComfyNode):
    """A node of a pack that takes its time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, [io.Image.Input("images"), io.Float.Input("seconds")], is_output_node=True)

    @classmethod
    def execute(cls, images: torch.Tensor, seconds: float) -> io.NodeOutput:
        time.sleep(seconds)
        return io.NodeOutput()


class LateWriter(io.ComfyNode):
    """Starts a thread that writes a picture once there is a file `go`, long after the job has ended."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = ("folder", "name")
        inputs = [io.Image.Input("images"), *(io.String.Input(name) for name in names)]
        return _schema(cls, inputs, is_output_node=True, not_idempotent=True)

    @classmethod
    def execute(cls, images: torch.Tensor, folder: str, name: str) -> io.NodeOutput:
        private = folder == "private"
        path = (Path(folder_paths.get_output_directory()) if private else _folder(folder)) / name
        go = Path(folder_paths.base_path) / "go"
        threading.Thread(target=cls.write, args=(images[0].clone(), path, go), daemon=True).start()
        return io.NodeOutput()

    @staticmethod
    def write(image: torch.Tensor, path: Path, go: Path) -> None:
        while not go.exists():
            time.sleep(0.05)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(image, path)
        go.unlink()


STRAYS = [Stray, Busy, LateWriter]
