"""Fit Benign Alignment from links to a file: anchors, the language model, the cache, and what the target ever reads."""

from __future__ import annotations

import hashlib
import importlib
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from family_cases import CASES
from portable import CATEGORIES, SOURCE, SPACE, UNSAFE, World, anchor_texts
from portable_clip import TracedClip
from safety_steering_pack.safety_steering.alignment.file import load_alignment
from safety_steering_pack.safety_steering.alignment.maps import AlignmentSettings
from safety_steering_pack.safety_steering.alignment.transfer import transfer
from safety_steering_pack.safety_steering.errors import MismatchError, SafetySteeringError
from safety_steering_pack.safety_steering.prompts.files import load_prompts
from safety_steering_pack.safety_steering.prompts.prompt_set import PromptRow, PromptSet

CONDITIONING = {"target": "conditioning", "space": "auto"}
RIDGE = AlignmentSettings()


class FakeLlm:
    """A language model whose states say by one fact each whether a text is violent or illegal."""

    name, layers, width, poolings = "tinylm", 4, SOURCE, ("mean",)

    def __init__(self, world):
        self._world, self.texts = world, []
        self.words = {"knife": "violence", "thief": "illegal"}

    def space(self, layer):
        return f"tinylm/source.{layer}"

    def open(self):
        return nullcontext(self)

    def states(self, texts, layers, pooling="mean", progress=None):
        self.texts += texts
        rows = []
        for text in texts:
            facts = torch.randn(1, 12, generator=torch.Generator().manual_seed(_number(text)))
            for word, category in self.words.items():
                facts[0, CATEGORIES.index(category)] += UNSAFE * (word in text)
            rows.append(self._world.source(facts))
        return torch.stack(rows)


def _number(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def prompts(texts, unsafe=""):
    return PromptSet(
        tuple(PromptRow(f"a{i}", "benign", safe=t, unsafe=unsafe) for i, t in enumerate(texts)), "mine.csv"
    )


@pytest.fixture
def module(comfy_in_process, tmp_path, monkeypatch):
    found = importlib.import_module("safety_steering_pack.bridge.alignment.run")
    monkeypatch.setattr(found, "alignment_paths", lambda key: [tmp_path / "cache" / f"{key}.safetensors"])
    return found


@pytest.fixture(scope="module")
def wan(comfy_in_process):
    return CASES["wan"].build(torch.float32)


def own_texts(clip):
    """What a CLIP was given, but for the probe that tells one stand-in from another."""
    probe = importlib.import_module("safety_steering_pack.bridge.models.fingerprints").PROBE
    return [text for text in clip.texts if text != probe]


def kept(tmp_path):
    return sorted((tmp_path / "cache").glob("*.safetensors"))


def test_the_second_run_reads_nothing_and_other_inputs_fit_anew(module, wan, tmp_path):
    vector, clip = World().vector(40), TracedClip(CASES["wan"])
    first = module.align(module.Inputs(vector, clip=clip, model=wan), CONDITIONING, RIDGE)
    assert own_texts(clip) == list(vector.anchors.texts)
    again = TracedClip(CASES["wan"])
    second = module.align(module.Inputs(vector, clip=again, model=wan), CONDITIONING, RIDGE)
    assert own_texts(again) == []
    assert second.sha256 == first.sha256
    assert len(kept(tmp_path)) == 1
    i2v = {"model": CASES["wan-i2v"].build(torch.float32), "latent": {"samples": CASES["wan-i2v"].latents()}}
    for inputs, settings in (
        (module.Inputs(vector, clip=clip, model=wan), AlignmentSettings("orthogonal")),
        (module.Inputs(vector, clip=clip, model=wan), AlignmentSettings(seed=1)),
        (module.Inputs(vector, clip=TracedClip(CASES["wan-i2v"]), **i2v), RIDGE),
        (module.Inputs(World(1).vector(40), clip=clip, model=wan), RIDGE),
        (module.Inputs(vector, clip=clip, model=wan, anchors=prompts(vector.anchors.texts[:20])), RIDGE),
    ):
        module.align(inputs, CONDITIONING, settings)
    assert len(kept(tmp_path)) == 6


def test_a_damaged_file_in_the_cache_is_fitted_again(module, wan, tmp_path):
    vector = World().vector(40)
    inputs = module.Inputs(vector, clip=TracedClip(CASES["wan"]), model=wan)
    first = module.align(inputs, CONDITIONING, RIDGE)
    (path,) = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    assert module.align(inputs, CONDITIONING, RIDGE).sha256 == first.sha256
    assert load_alignment(path).sha256 == first.sha256


def test_unsafe_anchors_are_refused_by_name_before_the_target_reads_any(module, wan):
    world = World()
    llm, clip = FakeLlm(world), TracedClip(CASES["wan"])
    texts = [*anchor_texts(60), "a man with a knife", "a thief at the window"]
    inputs = module.Inputs(world.vector(60), llm=llm, clip=clip, model=wan, anchors=prompts(texts))
    with pytest.raises(SafetySteeringError) as caught:
        module.align(inputs, CONDITIONING, RIDGE)
    message = str(caught.value)
    assert message.startswith("2 of 62 anchors")
    assert "a man with a knife" in message
    assert "a thief at the window" in message
    assert "quiet place" not in message
    assert own_texts(clip) == []


def test_with_a_language_model_own_captions_serve(module, wan):
    world = World()
    llm, clip = FakeLlm(world), TracedClip(CASES["wan"])
    vector, texts = world.vector(60), anchor_texts(80)
    pairs = prompts(texts, unsafe="a man with a knife")  # the unsafe side of a set is never read
    alignment = module.align(module.Inputs(vector, llm=llm, clip=clip, model=wan, anchors=pairs), CONDITIONING, RIDGE)
    assert alignment.anchors == 80
    assert llm.texts == list(texts)
    assert own_texts(clip) == list(texts)
    transfer(vector, alignment)
    assert not any("knife" in text for text in (*llm.texts, *clip.texts))


def test_no_unsafe_text_of_the_bundled_pairs_ever_reaches_the_target(module, wan, repo_root):
    bundled = load_prompts(repo_root / "vectors" / "prompts" / "safety_pairs.csv")
    world = World()
    llm, clip = FakeLlm(world), TracedClip(CASES["wan"])
    llm.words = {}
    vector = world.vector(60)
    inputs = module.Inputs(vector, llm=llm, clip=clip, model=wan, anchors=bundled.limited(60))
    transfer(vector, module.align(inputs, CONDITIONING, RIDGE))
    unsafe = {row.unsafe for row in bundled.rows}
    assert len(own_texts(clip)) == 60
    assert unsafe.isdisjoint(clip.texts)
    assert unsafe.isdisjoint(llm.texts)


def test_own_benign_prompts_are_read_by_the_target_alone(module, wan, tmp_path):
    world = World()
    llm, clip, vector = FakeLlm(world), TracedClip(CASES["wan"]), world.vector(40)
    own = PromptSet(
        tuple(PromptRow(f"b{i}", "x", safe=f"in my style {i}", unsafe="a man with a knife") for i in range(20)), "mine"
    )
    given = {"llm": llm, "clip": clip, "model": wan, "anchors": prompts(vector.anchors.texts)}
    alignment = module.align(module.Inputs(vector, benign=own, **given), CONDITIONING, RIDGE)
    assert (alignment.anchors, len(alignment.own_benign.pooled)) == (40, 20)
    assert own_texts(clip) == [*vector.anchors.texts, *(row.safe for row in own.rows)]
    assert llm.texts == list(vector.anchors.texts)
    plain = module.align(module.Inputs(vector, **given), CONDITIONING, RIDGE)
    assert plain.own_benign is None
    assert len(kept(tmp_path)) == 2
    assert set(alignment.about["coverage"]) == set(CATEGORIES)
    few = PromptSet(own.rows[:3], "few")
    with pytest.raises(SafetySteeringError, match="has 3 safe prompts"):
        module.align(module.Inputs(vector, benign=few, **given), CONDITIONING, RIDGE)


def test_what_is_missing_is_said(module, wan):
    vector, clip = World().vector(40), TracedClip(CASES["wan"])
    bare = type(vector)(vector.hook_points, vector.info)
    native = vector.with_info(kind="native")
    llm = FakeLlm(World())
    llm.space = lambda layer: f"biglm/source.{layer}"
    i2v = {"target": "clip_vision"}
    for inputs, choice, message in (
        (module.Inputs(bare, clip=clip, model=wan), CONDITIONING, "contains no anchors"),
        (module.Inputs(native, clip=clip, model=wan), CONDITIONING, "needs no alignment"),
        (module.Inputs(vector, model=wan), CONDITIONING, "needs your model's text encoder"),
        (module.Inputs(vector, clip=clip), CONDITIONING, "does not know which space the text encoder TracedClip"),
        (module.Inputs(vector, clip=clip), {"target": "blocks"}, "connect both model and clip"),
        (module.Inputs(vector), {"target": "encoder_layer"}, "Connect it to clip"),
        (module.Inputs(vector, clip=clip), i2v, "harmless images of your own"),
        (
            module.Inputs(vector, clip=clip, model=wan, anchors=prompts(["new"] * 20)),
            CONDITIONING,
            "holds no states for 1",
        ),
        (
            module.Inputs(
                vector, clip=clip, model=wan, anchors=PromptSet((PromptRow("u", "x", unsafe="bad"),), "mine")
            ),
            CONDITIONING,
            "rows without a safe prompt",
        ),
        (
            module.Inputs(vector, llm=llm, clip=clip, model=wan, anchors=prompts(anchor_texts(20))),
            CONDITIONING,
            f"The vector lives in {SPACE} and the language model gives biglm/source.3",
        ),
    ):
        with pytest.raises(SafetySteeringError, match=message):
            module.align(inputs, choice, RIDGE)


def test_the_nodes_hand_on_what_the_next_one_takes(module, wan, tmp_path, monkeypatch):
    def node(name, class_name):
        found = getattr(importlib.import_module(f"safety_steering_pack.nodes.{name}"), class_name)
        return found.PREPARE_CLASS_CLONE({})

    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "safety_alignments", ([str(tmp_path)], {".safetensors"}))
    vector, clip = World().vector(60), TracedClip(CASES["wan"])
    fit = node("fit_benign_alignment", "FitBenignAlignment")
    for method in (
        {"method": "ridge"},
        {"method": "orthogonal"},
        {"method": "mlp", "hidden": 16},
        {"method": "reduced_rank", "rank": 0},
    ):
        alignment, report, picture = fit.execute(
            vector, 0.2, 0, target=CONDITIONING, method=method, clip=clip, model=wan
        ).args
        assert alignment.settings.method == method["method"]
        assert "retrieval@1" in report
        assert picture.ndim == 4
    transfer_node = node("transfer_direction", "TransferDirection")
    carried, card = transfer_node.execute(vector, alignment).args
    assert (
        carried.sha256 == transfer_node.execute(vector, alignment, 1.0).args[0].sha256
    )  # as in graphs without sharpen
    sharpen = next(one for one in transfer_node.define_schema().inputs if one.id == "sharpen")
    assert sharpen.default == 0.2
    assert "umt5xxl.last" in card
    for module_name in ("save_safety_alignment", "load_safety_alignment"):
        importlib.import_module(f"safety_steering_pack.nodes.{module_name}")
    folder = importlib.import_module("safety_steering_pack.bridge.folders")
    (name,) = node("save_safety_alignment", "SaveSafetyAlignment").execute(alignment, "mine", False).args
    assert load_alignment(tmp_path / name).sha256 == alignment.sha256
    for wrong in ("", "../out", "cache/x", "a\nb"):
        with pytest.raises(SafetySteeringError, match="Give a plain name"):
            folder.new_path(folder.ALIGNMENTS, wrong)
    with pytest.raises(SafetySteeringError, match="The target is none of conditioning"):
        fit.execute(vector, 0.2, 0, target=None, method={"method": "ridge"})
    apply = node("apply_safety_steering", "ApplySafetySteering")
    made = apply.execute(wan, carried, 1.0, "add", "token", 0.0, 0.5, "both", "auto", gate={"gate": "off"})
    (shown,) = made.ui.as_dict()["text"]
    assert shown.startswith("Set by hand: add at conditioning, strength 1.")
    assert f"Never measured on {_model_name(wan)}: this vector's effect was measured on no model at all" in shown


def _model_name(model):
    return (
        importlib.import_module("safety_steering_pack.bridge.models.model_map")
        .read_shape(model.model.diffusion_model)
        .name
    )


def test_every_known_encoder_is_a_class_of_core_and_has_its_familys_space(comfy_in_process):
    encoders = importlib.import_module("safety_steering_pack.bridge.models.text_encoders")
    sources = [
        *Path(comfy_in_process.tree).glob("comfy/text_encoders/*.py"),
        *Path(comfy_in_process.tree).glob("comfy/*clip.py"),
    ]
    text = "\n".join(path.read_text() for path in sources)
    families = {family.name: family for family in encoders.FAMILIES}
    for class_name, family in encoders.ENCODERS.items():
        assert f"class {class_name}(" in text, class_name
        assert "conditioning" in families[family].states
    # LTX-2's and Anima's models rework the prompt, so their encoders alone tell no space
    assert not {"LTXAVTEModel", "AnimaTEModel"} & set(encoders.ENCODERS)


def test_notices_of_a_poor_fit_and_of_a_strength_never_measured(module, wan):
    check = importlib.import_module("safety_steering_pack.bridge.models.vector_fit")
    vector, name = World().vector(40), _model_name(wan)
    poor = module.align(module.Inputs(vector, clip=TracedClip(CASES["wan"]), model=wan), CONDITIONING, RIDGE)
    assert poor.quality.complaint  # the stand-in's states know nothing of the vector's
    carried = transfer(vector, poor)

    def said(vector, strength):
        return " ".join(check.notices(vector, tuple(vector.hook_points), strength, wan))

    assert "too poor to trust" in said(carried, 1.0)
    measured = carried.with_info(
        validated_on=(name,), suggestion=type(carried.info.suggestion)(strength=2.0), provenance=()
    )
    assert said(measured, 2.0) == ""
    assert "Strength -3 is beyond what was measured" in said(measured, -3.0)
    elsewhere = measured.with_info(validated_on=("wan2.1-1.3b",))
    assert f"Never measured on {name}: this vector's effect was measured only on wan2.1-1.3b" in said(elsewhere, 1.0)


def test_a_vector_of_a_language_model_is_refused_by_apply(module, wan):
    check = importlib.import_module("safety_steering_pack.bridge.models.vector_fit")
    shape = importlib.import_module("safety_steering_pack.bridge.models.model_map").read_shape(
        wan.model.diffusion_model
    )
    inner = World().vector(40).with_info(kind="transferred", gap_kind="estimated")
    with pytest.raises(MismatchError, match="lives in a language model"):
        check.check_fits(inner, tuple(inner.hook_points), shape)
