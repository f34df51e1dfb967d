"""The files of a language model on disk, checked before anything reads them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from ..errors import SafetySteeringError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")


def slug(name: str) -> str:
    """A name as part of a space's id: lower case letters, digits, '.', '-' and '_'."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-") or "model"


def check_files(path: Path) -> None:
    """Raise SafetySteeringError, naming what is missing, unless `path` is a whole model folder or a GGUF file."""
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise SafetySteeringError(f"There is no file {path.name}. Put it into models/safety_llms.")
        return
    if not path.is_dir():
        raise SafetySteeringError(
            f"There is no model '{path.name}'. Give a Hugging Face folder, or a file that ends in .gguf."
        )
    missing = [] if (path / "config.json").is_file() else ["config.json"]
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        missing.append(f"a tokenizer ({' or '.join(TOKENIZER_FILES[:2])})")
    weights = weight_files(path)
    missing += [file.name for file in weights if not file.is_file()] if weights else ["model.safetensors"]
    if missing:
        raise SafetySteeringError(
            f"The folder {path.name} lacks {', '.join(missing)}. Download the whole model again; weights must be "
            "safetensors, others are not read."
        )


def check_reader(path: Path) -> None:
    """Raise SafetySteeringError if a model's folder was saved by a later major version of transformers than is here.

    Version 4 reads some settings of version 5, such as the rotary base, as its own defaults without a word.
    """
    saved = None
    with suppress(OSError, ValueError, AttributeError):  # a config that cannot be read is told when it is needed
        saved = json.loads((path / "config.json").read_text(encoding="utf-8")).get("transformers_version")
    here = version("transformers")
    majors = [re.match(r"(\d+)\.", str(one)) for one in (saved, here)]
    if majors[0] and majors[1] and int(majors[0][1]) > int(majors[1][1]):
        raise SafetySteeringError(
            f"{path.name} was saved by transformers {saved}, which {here} does not read rightly. Update it (pip "
            f"install 'transformers>={majors[0][1]}'), or take a copy of the model that was saved by {majors[1][1]}."
        )


def weight_files(path: Path) -> list[Path]:
    """A model's weight files, existing or not; none if its folder names none."""
    if path.suffix.lower() == ".gguf":
        return [path]
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(path.glob("model.safetensors"))
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise SafetySteeringError(f"{path.name}/{index.name} cannot be read. Download it again.") from error
    if any(not isinstance(shard, str) or Path(shard).name != shard for shard in shards):
        raise SafetySteeringError(f"{path.name}/{index.name} names files outside of its folder. Do not use it.")
    return [path / shard for shard in sorted(shards)]
