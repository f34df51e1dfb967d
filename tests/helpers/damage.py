"""Ways to damage a safetensors file, from a flipped byte to a strange value deep in its metadata."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load, save, save_file

Parts = tuple[dict[str, Any], bytes]
JSON_FIELDS = (
    "spaces",
    "categories",
    "block_counts",
    "suggestion",
    "window",
    "provenance",
    "validation_auc",
    "anchor_texts",
)
STRANGE = (
    None, True, 0, -1, 10**400, 1e308, float("nan"), float("inf"), "", "\ud800", "\x00", "a/b", "a=b", "x" * 5000,
    [], {}, [[]], {"": ""}, [1, "a"], [None], {"a": {"b": []}}, {"conditioning": 3},
    "block.blocks.9999.image", "source.1", "conditioning",
)  # fmt: skip


def split(data: bytes) -> Parts:
    """A safetensors file's header and body."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(header: dict[str, Any] | str, body: bytes) -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(8, "little") + raw + body


def flip_bytes(rng: random.Random, data: bytes) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
    return bytes(mutated)


def flip_header_bytes(rng: random.Random, data: bytes) -> bytes:
    size = 8 + int.from_bytes(data[:8], "little")
    return flip_bytes(rng, data[:size]) + data[size:]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def grow(rng: random.Random, data: bytes) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 4096))


def claim_header(rng: random.Random, data: bytes) -> bytes:
    sizes = (0, 1, 2, len(data) - 8, len(data) - 7, 2**31, 2**32 - 1, 2**63, 2**64 - 1, rng.randrange(len(data)))
    return rng.choice(sizes).to_bytes(8, "little") + data[8:]


def change_metadata(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    metadata = header["__metadata__"]
    key = rng.choice([*metadata, *JSON_FIELDS])
    metadata[key] = rng.choice(
        ("", "{", "null", "9" * 6000, "-1e999", "NaN", "\x00", "ü" * 2000, json.dumps(rng.choice(STRANGE)))
    )
    return join(header, body)


def change_json(rng: random.Random, data: bytes) -> bytes:
    """Replace, drop, or add something somewhere inside one structured field."""
    header, body = split(data)
    key = rng.choice(JSON_FIELDS)
    value = json.loads(header["__metadata__"].get(key, "{}"))
    inside = [value]
    while rng.random() < 0.6:
        items = inside[-1].values() if isinstance(inside[-1], dict) else inside[-1]
        inside.append(rng.choice([item for item in items if isinstance(item, dict | list)] or [inside[-1]]))
    place = inside[-1]
    if isinstance(place, dict):
        place[rng.choice([*place, "new", "", "strength", "mix", "hook_points", "violence"])] = rng.choice(STRANGE)
    else:
        place.insert(rng.randrange(len(place) + 1), rng.choice(STRANGE))
        if rng.random() < 0.5 and len(place) > 1:
            place.pop(rng.randrange(len(place)))
    header["__metadata__"][key] = json.dumps(value)
    return join(header, body)


def nest_json(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    depth = rng.choice((50, 900, 100_000))
    header["__metadata__"][rng.choice(JSON_FIELDS)] = opening * depth + "1" + closing * depth
    return join(header, body)


def drop_metadata(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    del header["__metadata__"][rng.choice([*header["__metadata__"]])]
    return join(header, body)


def break_metadata(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    header["__metadata__"] = rng.choice(
        (None, [], "text", {"format": 1}, {"format": "safety_vector"}, {"format": None})
    )
    return join(header, body)


def change_entry(rng: random.Random, data: bytes) -> bytes:
    """Another dtype, shape or place for a tensor, in the header only."""
    header, body = split(data)
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    which = rng.choice(("dtype", "shape", "data_offsets"))
    entry[which] = rng.choice(
        {
            "dtype": ("F16", "F64", "I8", "BOOL", "C64", "F8_E4M3", "F4", "F6_E2M3", "U64", "X", None, 3),
            "shape": (
                [], [0], [1, 1], [2**40, 2**40], [0, 2**63], [0, 2**64 - 1], [-1], [1.5], [2, 3, 4], "2", None,
            ),
            "data_offsets": ([0, 0], [0, 2**63], [8, 4], [-4, 0], [0], None, [0, len(body)], [len(body)] * 2),
        }[which]
    )  # fmt: skip
    return join(header, body)


def change_tensor(rng: random.Random, data: bytes) -> bytes:
    """A consistent file whose tensor has another dtype, shape or value."""
    header, _ = split(data)
    tensors = load(data)
    name = rng.choice([*tensors])
    old = tensors[name]
    tensors[name] = rng.choice(
        (
            old * float("nan"), old / 0, old * 0, -old, old * 1e38, old.half(), old.double() * 1e300, old.bool(),
            old.long(), old.to(torch.complex64), old.to(torch.float8_e4m3fn), old[..., :0], old.reshape(-1)[0],
            old[None], old.flatten(), torch.zeros(0, 2**40), torch.zeros(old.numel() + 1),
        )
    )  # fmt: skip
    return save({key: value.contiguous().clone() for key, value in tensors.items()}, metadata=header["__metadata__"])


def drop_or_rename_tensor(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    name = rng.choice([name for name in header if name != "__metadata__"])
    header[rng.choice((name + "x", "", "anchors/activations", "a/b/c/d"))] = header.pop(name)
    return join(header, body)


def duplicate_keys(rng: random.Random, data: bytes) -> bytes:
    header, body = split(data)
    key = rng.choice([*header])
    again = {"__metadata__": {"format": "other"}}.get(key, {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})
    text = json.dumps(header)
    extra = f"{json.dumps(key)}: {json.dumps(again)}"
    return join(rng.choice((f"{{{extra}, {text[1:]}", f"{text[:-1]}, {extra}}}")), body)


MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    flip_bytes,
    flip_header_bytes,
    cut,
    grow,
    claim_header,
    change_metadata,
    change_json,
    nest_json,
    drop_metadata,
    break_metadata,
    change_entry,
    change_tensor,
    drop_or_rename_tensor,
    duplicate_keys,
)


def change_file(path, *, metadata: dict[str, str] | None = None, **tensors: torch.Tensor | None) -> None:
    """Write the file again with some metadata or tensors replaced, or dropped where the new value is None."""
    with safe_open(path, framework="pt") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        facts = file.metadata() | (metadata or {})
    kept = {name: tensor for name, tensor in (old | tensors).items() if tensor is not None}
    save_file(kept, path, metadata={key: value for key, value in facts.items() if value is not None})
