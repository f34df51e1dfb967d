"""An API prompt against the server's own definitions of nodes: every class, link and widget."""

from __future__ import annotations

from typing import Any

Definitions = dict[str, Any]
Prompt = dict[str, dict[str, Any]]
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
DYNAMIC_COMBO, AUTOGROW = "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"


def prompt_problems(prompt: Prompt, definitions: Definitions) -> list[str]:
    """What the server would not understand, or would have to do without; empty for a sound prompt."""
    return [
        f"{id_} {node['class_type']}: {problem}"
        for id_, node in prompt.items()
        for problem in _node_problems(node, prompt, definitions)
    ]


def _node_problems(node: dict[str, Any], prompt: Prompt, definitions: Definitions) -> list[str]:
    definition = definitions.get(node["class_type"])
    if definition is None:
        return ["no such class"]
    given = node["inputs"]
    required, known = _declared(definition["input"], given)
    problems = [f"{name} is required and absent" for name in required if name not in given]
    for name, value in given.items():
        if name not in known:
            problems.append(f"{name} is no input")
        elif isinstance(value, list):
            problems += _link_problems(name, known[name][0], value, prompt, definitions)
        else:
            problems += _widget_problems(name, known[name], value)
    return problems


def _declared(inputs: dict[str, Any], given: dict[str, Any], prefix: str = "") -> tuple[list[str], dict[str, Any]]:
    """The names of required inputs, and every input's declaration by name, those of the chosen options included."""
    required: list[str] = []
    known: dict[str, Any] = {}
    for kind in ("required", "optional"):
        for name, declaration in inputs.get(kind, {}).items():
            full = prefix + name
            options = declaration[1] if len(declaration) > 1 else {}
            if declaration[0] == AUTOGROW:  # a growing list of inputs, each named prefix.name
                template = options["template"]["input"]
                for grown in (entry for entry in given if entry.startswith(f"{full}.")):
                    known[grown] = next(iter((template.get("required") or template["optional"]).values()))
                continue
            known[full] = declaration
            required += [full] if kind == "required" else []
            if declaration[0] == DYNAMIC_COMBO:
                chosen = [option for option in options["options"] if option["key"] == given.get(full)]
                inner_required, inner = _declared(chosen[0]["inputs"], given, f"{full}.") if chosen else ([], {})
                required += inner_required
                known |= inner
    return required, known


def _link_problems(name: str, type_: Any, value: list[Any], prompt: Prompt, definitions: Definitions) -> list[str]:
    origin, output = value
    if origin not in prompt:
        return [f"{name} is linked to nowhere"]
    outputs = definitions.get(prompt[origin]["class_type"], {}).get("output", [])
    if output >= len(outputs):
        return [f"{name} is linked to an output that there is not"]
    gives = outputs[output]
    wanted = {"COMBO"} if isinstance(type_, list) else set(str(type_).split(","))
    if "*" in (gives, *wanted) or set(str(gives).split(",")) & wanted or "MATCHTYPE" in f"{gives}{type_}":
        return []
    return [f"{name} takes {type_} and is fed {gives}"]


def _widget_problems(name: str, declaration: list[Any], value: Any) -> list[str]:
    type_, options = declaration[0], declaration[1] if len(declaration) > 1 else {}
    offered = type_ if isinstance(type_, list) else options.get("options")
    if type_ == DYNAMIC_COMBO:
        offered = [option["key"] for option in options["options"]]
    if offered is not None:
        return [] if value in offered else [f"{name} = {value} is not on offer"]
    types = str(type_).split(",")
    if not set(types) & set(WIDGETS):
        return [f"{name} takes a link of {type_} and has the value {value!r}"]
    if set(types) & {"INT", "FLOAT"} and not options.get("min", value) <= value <= options.get("max", value):
        return [f"{name} = {value} is out of range"]
    return []
