"""Media files on a guarded server: none that refer to other files or addresses are opened, however they are spelled."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av

from ...safety_steering.errors import SafetySteeringError

HEAD = 65_536
# FFmpeg's readers of files that hold their own sound and pictures
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,m4v,h264,hevc,ivf,obu,ogg,wav,w64,mp3,flac,aac,"
    "ac3,eac3,aiff,au,caf,amr,wv,ape,tta,gif,apng,mjpeg,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,asf,nut,mxf,dv"
)
PLAYLIST = re.compile(
    rb"#EXTM3U|#EXT-X-|ffconcat\s+version|<MPD\b|<SmoothStreamingMedia|<asx\b|<smil\b|\[playlist\]|\[Reference\]|"
    rb"^\s*(file\s+['\"]?\S|(https?|rtsp|rtmp|ftp|file|concat|crypto|data|tcp|udp)://)|^v=0\s.*^[oc]=",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
REFUSED = "This media file refers to other files or addresses, or is of no known kind. Upload the sound or film itself."


class MediaRefused(SafetySteeringError):
    """A media file is not opened."""


def guard_media() -> None:
    """Let PyAV, through which ComfyUI opens sound and films, read files of FORMATS alone."""
    original: Callable[..., Any] = av.open

    @functools.wraps(original)
    def open_media(file: Any, mode: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if mode not in (None, "r"):
            return original(file, mode, *args, **kwargs)
        kwargs["options"] = {
            **(kwargs.get("options") or {}),
            "format_whitelist": FORMATS,
            "protocol_whitelist": "file",
        }
        try:
            return original(file, "r", *args, **kwargs)
        except av.error.FFmpegError as error:
            raise MediaRefused(f"{REFUSED} ({type(error).__name__})") from error

    av.open = open_media


def refers_elsewhere(path: Path) -> bool:
    """Whether a file is a playlist or the like, told by its beginning."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    return b"\x00" not in head[:1024] and PLAYLIST.search(head) is not None
