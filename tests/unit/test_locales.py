"""How tools/locales.py makes the frontend's words of node definitions and settings."""

from __future__ import annotations

import pytest

import locales

NODE = {
    "name": "Pack.Node",
    "display_name": "A Node",
    "description": "Does a thing.",
    "category": "things",
    "input": {
        "required": {
            "plain": ["INT", {"tooltip": "How many."}],
            "kind": [
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "tooltip": "Which.",
                    "options": [
                        {"key": "a", "inputs": {"required": {"size": ["INT", {"tooltip": "Of a."}]}}},
                        {"key": "b", "inputs": {"optional": {"size": ["INT", {"tooltip": "Of others."}]}}},
                        {"key": "c", "inputs": {"required": {"size": ["INT", {"tooltip": "Of others."}]}}},
                    ],
                },
            ],
        },
        "optional": {"clip": ["CLIP", {"tooltip": "Its {odd} | sign."}]},
        "hidden": {"unique_id": ["UNIQUE_ID"]},
    },
    "output_name": ["made"],
    "output_tooltips": ["What is made."],
}
SETTINGS = """const ONE = "Pack.Area.One";
    {
        id: ONE,
        category: ["Pack", "Area", "One"],
        name: "Do one thing",
        tooltip: "Off: another.",
        type: "boolean",
    },
"""


def test_nested_inputs_have_their_full_name_and_what_each_choice_says():
    inputs = locales.inputs_of(NODE["input"])
    assert list(inputs) == ["plain", "kind", "kind.size", "clip"]
    assert inputs["kind.size"] == "a: Of a.\nb, c: Of others."


def test_keys_have_no_dots_and_labels_are_the_inputs_names():
    files = locales.render({"Pack.Node": NODE}, SETTINGS)
    node = files["nodeDefs.json"]["Pack_Node"]
    assert node["inputs"]["kind_size"]["name"] == "size"
    assert node["inputs"]["clip"] == {"name": "clip", "tooltip": "Its {odd} | sign."}  # tooltips are shown as they are
    assert node["outputs"] == {"0": {"name": "made", "tooltip": "What is made."}}
    assert files["settings.json"] == {"Pack_Area_One": {"name": "Do one thing", "tooltip": "Off: another."}}
    assert files["main.json"] == {
        "nodeCategories": {"things": "things"},
        "settingsCategories": {"Pack": "Pack", "Area": "Area"},
    }


@pytest.mark.parametrize("field", ["display_name", "description"])
def test_what_the_frontend_would_not_show_as_it_is_is_refused(field):
    with pytest.raises(ValueError, match="does not show"):
        locales.render({"Pack.Node": {**NODE, field: "one | two"}}, SETTINGS)


def test_a_setting_that_is_written_otherwise_is_not_left_out():
    other = SETTINGS + SETTINGS.replace("tooltip", "hint")
    with pytest.raises(ValueError, match="not written as"):
        locales.render({"Pack.Node": NODE}, other)


def test_the_panels_sentences_are_found_and_one_that_is_made_elsewhere_is_refused():
    scripts = ['say("Two {things}.", { things });  // say(what)', 'addPanel(node, "A panel", refresh); say(\n "One.");']
    assert locales.panel_words(scripts) == ["A panel", "One.", "Two {things}."]
    assert locales.render({}, SETTINGS, ["One."])["main.json"]["safetySteering"] == {"One.": "One."}
    with pytest.raises(ValueError, match=r"into the call: say\(sentence"):
        locales.panel_words(["say(sentence)"])
