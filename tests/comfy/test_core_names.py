"""The names of ComfyUI's core that the pack uses are there; one that vanishes is told in a sentence."""

from __future__ import annotations

import core_names
import pytest
from comfy_tree import COMFYUI_VERSION, tree_version


@pytest.fixture(scope="module")
def used(comfy_in_process):
    return core_names.used_names(core_names.pack_files(), comfy_in_process.tree)


def test_every_name_of_core_that_the_pack_uses_is_there(comfy_in_process, used):
    assert core_names.vanished(used, tree_version(comfy_in_process.tree)) == []


def test_the_names_are_read_off_the_pack(used):
    expected = {
        "comfy.patcher_extension.WrappersMP.APPLY_MODEL": "bridge/steering/apply.py",
        "comfy.model_patcher.ModelPatcher": "bridge/capture/collect.py",
        "comfy_api.latest.io": "nodes/apply_safety_steering.py",
        "folder_paths.get_filename_list": "bridge/folders.py",
    }
    for name, file in expected.items():
        assert file in used[name]
    assert not any(name.startswith(("torch", "json", "safety_steering")) for name in used)


def test_what_vanished_is_told_in_a_sentence(comfy_in_process, tmp_path, monkeypatch):
    source = (
        "import comfy.gone\nimport comfy.samplers as s\nfrom comfy.model_patcher import Gone, ModelPatcher\n"
        "from server import PromptServer\n"
        "s.gone_too(1)\ns.CFGGuider.outer_sample\nModelPatcher.gone_method\nPromptServer.instance.routes.get\n"
    )
    path = tmp_path / "user.py"
    path.write_text(source, encoding="utf-8")
    monkeypatch.setattr(core_names, "SIGNATURES", {"comfy.samplers.calc_cond_batch": ("model", "something_else")})
    complaints = core_names.vanished(core_names.used_names([path], comfy_in_process.tree), "9.9")
    assert complaints == [
        *(
            f"ComfyUI 9.9 has no {name}, which user.py uses."
            for name in (
                "comfy.gone",
                "comfy.model_patcher.Gone",
                "comfy.model_patcher.ModelPatcher.gone_method",
                "comfy.samplers.gone_too",
            )
        ),
        "comfy.samplers.calc_cond_batch of ComfyUI 9.9 takes (model, conds), expected (model, something_else).",
    ]


def test_model_classes_that_a_tree_lacks_are_named(comfy_in_process):
    from safety_steering_pack.bridge.models.families import FAMILIES

    tree = comfy_in_process.tree
    assert core_names.missing_classes(["WanModel", "WanOfNextYear"], tree) == ["WanOfNextYear"]
    if tree_version(tree) == COMFYUI_VERSION:
        assert core_names.missing_classes((family.class_name for family in FAMILIES), tree) == []
