"""Writes locales/en, the words that ComfyUI's frontend shows, and the same in each language of tools/translations.

The words are those of the node definitions, of js/settings.js, and of what the panels of js/ say. English labels are
the inputs' own names, because README, help pages and error messages call them by these.

    .venv/bin/python tools/start.py locales           # `make locales`
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[1]
import pack
import translation
from comfy_tree import comfyui_on_path

FOLDER = REPO_ROOT / "locales"
ENGLISH = FOLDER / "en"
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
MESSAGE_SYNTAX = set("@{}|")  # vue-i18n does not show these as they are
CONSTANT = re.compile(r'const (\w+) = "([^"]+)";')
SAY = re.compile(r'\bsay\(\s*"([^"]+)"')
PANEL = re.compile(r'\baddPanel\(\s*node,\s*"([^"]+)"')  # js/lib/panel.js says its label
COMMENT = re.compile(r"//.*")
UNSEEN = re.compile(r'(?<!function )\bsay\((?!\s*"|label\))')
PANELS = "safetySteering"  # where js/lib/words.js looks
SETTING = re.compile(
    r'id: (\w+),\s+category: \["([^"]+)", "([^"]+)", "[^"]+"\],\s+name: "([^"]+)",\s+tooltip: "([^"]+)",'
)


def definitions() -> dict[str, Any]:
    """Node id -> definition, as the server's /object_info gives it. ComfyUI must be importable."""
    pack.load()
    from safety_steering_pack.bridge.folders import register_folders
    from safety_steering_pack.nodes import SafetySteeringExtension

    register_folders()
    nodes = asyncio.run(SafetySteeringExtension().get_node_list())
    found = [node.GET_NODE_INFO_V1() for node in nodes]
    return {definition["name"]: definition for definition in found}


def inputs_of(declared: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Full name of every input, such as gate.threshold -> its tooltip.

    An input that several choices of a dynamic combo have gets all their tooltips, each with its choices before it.
    """
    found: dict[str, str] = {}
    for part in ("required", "optional"):
        for name, (type_, options) in declared.get(part, {}).items():
            found[prefix + name] = options.get("tooltip", "")
            if type_ == DYNAMIC_COMBO:
                found |= _inputs_of_choices(options["options"], f"{prefix}{name}.")
    return found


def _inputs_of_choices(choices: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, str]:
    said: dict[str, dict[str, list[str]]] = {}
    for choice in choices:
        for name, tooltip in inputs_of(choice["inputs"], prefix).items():
            said.setdefault(name, {}).setdefault(tooltip, []).append(choice["key"])
    return {
        name: next(iter(tooltips))
        if len(tooltips) == 1
        else "\n".join(f"{', '.join(keys)}: {tooltip}" for tooltip, keys in tooltips.items())
        for name, tooltips in said.items()
    }


def panel_words(scripts: Sequence[str]) -> list[str]:
    """The sentences that the panels' scripts say. Raises ValueError for one that is not written out in the call."""
    code = [COMMENT.sub("", source) for source in scripts]
    for source in code:
        if unseen := UNSEEN.search(source):
            raise ValueError(f"Write the sentence into the call: {source[unseen.start() : unseen.start() + 60]}")
    found = [sentence for source in code for sentence in SAY.findall(source) + PANEL.findall(source)]
    return sorted(set(found))


def scripts() -> list[str]:
    """The text of each script of the panels."""
    return [path.read_text(encoding="utf-8") for path in sorted((REPO_ROOT / "js").rglob("*.js"))]


def render(nodes: Mapping[str, Any], settings_js: str, panels: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """File name -> its content. ``panels`` are the sentences of the panels.

    Raises ValueError for a name or description that the frontend would not show as it is written, and for a setting
    that is not written as the others.
    """
    settings, categories = _settings(settings_js)
    node_categories = {definition["category"] for definition in nodes.values()}
    return {
        "main.json": {
            "nodeCategories": {_plain(name): name for name in sorted(node_categories)},
            "settingsCategories": {_plain(name): name for name in categories},
            **({PANELS: {sentence: sentence for sentence in panels}} if panels else {}),
        },
        "nodeDefs.json": {_key(name): _node(definition) for name, definition in nodes.items()},
        "settings.json": settings,
    }


def _node(definition: Mapping[str, Any]) -> dict[str, Any]:
    inputs = inputs_of(definition["input"])
    outputs = zip(definition["output_name"], definition["output_tooltips"], strict=True)
    return {
        "display_name": _plain(definition["display_name"]),
        "description": _plain(definition["description"]),
        "inputs": {
            _key(name): {"name": _plain(name.rpartition(".")[2]), "tooltip": tip} for name, tip in inputs.items()
        },
        "outputs": {str(index): {"name": _plain(name), "tooltip": tip} for index, (name, tip) in enumerate(outputs)},
    }


def _settings(source: str) -> tuple[dict[str, Any], list[str]]:
    """What settings.json holds, and the names of the categories, in the order of the dialog."""
    constants = dict(CONSTANT.findall(source))
    found = SETTING.findall(source)
    if not found or len(found) != source.count(" id: "):
        raise ValueError("A setting in js/settings.js is not written as id, category, name, tooltip.")
    settings = {
        _key(constants[id_]): {"name": _plain(name), "tooltip": _plain(tooltip)} for id_, _, _, name, tooltip in found
    }
    return settings, list(dict.fromkeys(name for _, *names, _, _ in found for name in names))


def _key(name: str) -> str:
    """A name as the frontend looks it up: dots would part a path."""
    return name.replace(".", "_")


def _plain(text: str) -> str:
    if bad := MESSAGE_SYNTAX & set(text):
        raise ValueError(f"The frontend does not show {' '.join(sorted(bad))} as it is: {text}")
    return text


def written(content: Mapping[str, Any]) -> str:
    """A file's text."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    comfyui_on_path()
    settings = (REPO_ROOT / "js" / "settings.js").read_text(encoding="utf-8")
    english = render(definitions(), settings, panel_words(scripts()))
    write(ENGLISH, english)
    for language in translation.languages():
        write(FOLDER / language, translation.translated(english, translation.table_of(language)))


def write(folder: Path, files: Mapping[str, Any]) -> None:
    """Writes a locale, file name -> content, into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(written(content), encoding="utf-8")
        print(f"wrote {(folder / name).relative_to(REPO_ROOT)}")


if __name__ == "__main__":
    main()
