"""Judges that use ComfyUI's own objects: a CLIP's two halves, and the nodes of other packs."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.judges.zero_shot import ZeroShot, parse_prompts
from small_world.runtime import JUDGE_FILE

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**TEXT, "hidden_size": 48, "image_size": 64, "patch_size": 16}


@pytest.fixture(scope="module")
def whole_clip() -> Any:
    """A tiny CLIP with random weights, as its authors' library makes it."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(5)
    # the token ids are those of the real tokenizer
    text = {**TEXT, "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 1}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=32)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:  # the library's starting values would give all texts nearly one embedding
                weight.normal_(0, 0.3 if "embedding" in name else weight.shape[1] ** -0.5)
    return model


def halves(whole_clip: Any, tmp_path: Any, drop: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """The two halves through a file in the real format and ComfyUI's own loaders.

    The loader nodes take the sizes from constants; these calls are what they make, with the sizes given.
    """
    import comfy.clip_vision
    import comfy.sd

    state = {name: tensor for name, tensor in whole_clip.state_dict().items() if not name.endswith("position_ids")}
    text = {
        name: t for name, t in state.items() if name.startswith(("text_model.", "text_projection")) and name not in drop
    }
    vision = {name: t for name, t in state.items() if name.startswith(("vision_model.", "visual_projection"))}
    save_file(text, tmp_path / "text.safetensors")
    config = {**TEXT, "max_position_embeddings": 77, "eos_token_id": 49407, "hidden_act": "quick_gelu"}
    clip = comfy.sd.load_clip([str(tmp_path / "text.safetensors")], model_options={"model_config": config})
    about = {
        **VISION,
        "num_channels": 3,
        "projection_dim": 32,
        "hidden_act": "quick_gelu",
        "model_type": "clip_vision_model",
    }
    seeing = comfy.clip_vision.ClipVisionModel(about)
    missing, _ = seeing.load_sd(vision)
    assert missing == []
    return clip, seeing


@pytest.fixture(scope="module")
def pair(comfy_in_process: Any, whole_clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    module = importlib.import_module("safety_steering_pack.bridge.judging.clip_pair")
    return module.ClipPair(*halves(whole_clip, tmp_path_factory.mktemp("clip")))


def test_texts_and_frames_land_where_the_original_puts_them(pair: Any, whole_clip: Any) -> None:
    import comfy.clip_model
    from transformers import CLIPTokenizer

    texts = ["a quiet street at dawn", "a fight (with knives)", "fox"]
    folder = importlib.import_module("comfy.sd1_clip").__file__.replace("sd1_clip.py", "sd1_tokenizer")
    tokens = CLIPTokenizer.from_pretrained(folder)(
        texts,
        padding="max_length",
        max_length=77,
        return_tensors="pt",
    )
    frames = np.random.default_rng(0).integers(0, 256, (3, 80, 64, 3), dtype=np.uint8)
    pixels = comfy.clip_model.clip_preprocess(torch.from_numpy(frames).float() / 255, size=64)
    with torch.inference_mode():
        outputs = whole_clip(**tokens, pixel_values=pixels)
    np.testing.assert_allclose(pair.texts(texts), outputs.text_embeds.numpy(), atol=1e-3)
    np.testing.assert_allclose(pair.frames(frames), outputs.image_embeds.numpy(), atol=1e-3)


def test_a_clip_judges_by_prompts(pair: Any) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    judge = ZeroShot(pair, parse_prompts("safe: a calm street\nviolence: a fight | a gun"))
    verdict = judge(frames, "a gun")
    seen, texts = pair.frames(frames), pair.texts(["a calm street", "a fight", "a gun"])
    probability = torch.from_numpy(100 * seen @ texts.T).softmax(1).numpy()
    assert verdict.scores["violence"] == pytest.approx(probability[:, 1:].sum(1).max(), abs=1e-5)
    assert verdict.clip_score == pytest.approx(100 * np.clip(seen @ texts[2], 0, None).mean(), abs=1e-3)
    assert verdict.features.shape == (32,)


def test_halves_that_do_not_belong_together_are_refused(pair: Any, whole_clip: Any, tmp_path: Any) -> None:
    module = importlib.import_module("safety_steering_pack.bridge.judging.clip_pair")
    clip, seeing = halves(whole_clip, tmp_path)
    with pytest.raises(SafetySteeringError, match="32 wide, the text encoder no CLIP at all"):
        module.ClipPair(object(), seeing)
    seeing.model.visual_projection = torch.nn.Linear(48, 20)
    with pytest.raises(SafetySteeringError, match="CLIP_VISION is 20 wide, the text encoder clip_l 32"):
        module.ClipPair(clip, seeing)
    del seeing.model.visual_projection
    seeing.model.visual_projection = lambda states: states  # as ComfyUI has it for SigLIP and DINO
    with pytest.raises(SafetySteeringError, match="no projection"):
        module.ClipPair(clip, seeing)
    unprojected, seeing = halves(whole_clip, tmp_path, drop=("text_projection.weight",))
    with torch.no_grad():  # what the file does not give is whatever lay in memory: mostly zeros
        unprojected.cond_stage_model.clip_l.transformer.text_projection.weight.zero_()
    with pytest.raises(SafetySteeringError, match="has no text projection"):
        module.ClipPair(unprojected, seeing)


class Brightness:
    """A node of the old kind that keeps state, as those do that load a model once."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {"pictures": ("IMAGE",), "limit": ("FLOAT", {"default": 0.5}), "mode": (["mean", "max"],)},
            "optional": {"note": ("STRING", {"default": ""})},
        }

    RETURN_TYPES = ("IMAGE", "FLOAT", "BOOLEAN")
    RETURN_NAMES = ("pictures", "per frame", "bright")
    FUNCTION = "look"

    def look(self, pictures: torch.Tensor, limit: float, mode: str, note: str = "") -> Any:
        if note == "fail":
            raise RuntimeError("out of paint")
        values = pictures.mean((1, 2, 3)) if mode == "mean" else pictures.amax((1, 2, 3))
        answer = (pictures, values.tolist(), bool((values > limit).any()))
        return {"ui": {}, "result": answer} if note == "shown" else answer


@pytest.fixture
def node_judge(comfy_in_process: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class NodeJudge, with nodes of both kinds installed."""
    from comfy_api.latest import io

    import nodes

    class Redness(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id="Redness",
                inputs=[io.Image.Input("image"), io.Combo.Input("channel", options=["red", "blue"])],
                outputs=[io.Float.Output(display_name="score")],
            )

        @classmethod
        async def execute(cls, image: torch.Tensor, channel: str) -> io.NodeOutput:
            return io.NodeOutput(float(image[..., 0 if channel == "red" else 2].mean()))

    class Blind:
        RETURN_TYPES = ("STRING",)
        FUNCTION = "look"

        @classmethod
        def INPUT_TYPES(cls) -> dict:
            return {"required": {"image": ("IMAGE",), "model": ("MODEL",)}}

        def look(self, image: torch.Tensor, model: Any) -> tuple:
            return (model or "nothing",)

    for name, node in {"Brightness": Brightness, "Redness": Redness, "Blind": Blind}.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node)
    return importlib.import_module("safety_steering_pack.bridge.judging.node_judge").NodeJudge


def video(*shades: int) -> np.ndarray:
    frames = np.zeros((len(shades), 8, 8, 3), np.uint8)
    frames[..., 0] = np.array(shades)[:, None, None]
    return frames


def test_another_packs_node_judges(node_judge: Any) -> None:
    Brightness.made = 0
    judge = node_judge("Brightness", others={"mode": "max"})
    assert judge.name.startswith("node Brightness, pictures to output 1")
    assert judge(video(0, 255, 0)).scores == {"Brightness": 1.0}  # the worst of its frames
    assert judge(video(0, 0, 51)).scores["Brightness"] == pytest.approx(0.2)
    assert Brightness.made == 1
    bright = node_judge("Brightness", output="bright", others={"limit": 0.3, "note": "shown"})
    assert bright(video(255)).unsafe
    assert not bright(video(10)).unsafe
    inverted = node_judge("Brightness", output="2", true_means="safe")
    assert inverted(video(10)).unsafe
    assert not node_judge("Brightness", others={"mode": "max"}, threshold=0.3)(video(51)).unsafe


def test_a_node_of_the_new_kind_judges_also_asynchronously(node_judge: Any) -> None:
    assert node_judge("Redness")(video(255, 255)).unsafe
    assert not node_judge("Redness", others={"channel": "blue"})(video(255, 255)).unsafe


@pytest.mark.parametrize(
    ("node", "settings", "said"),
    [
        ("Nowhere", {}, "No node has the id 'Nowhere'. Install its pack"),
        ("Brightness", {"image_input": "frames"}, "has no input 'frames'. Its inputs: pictures, limit, mode, note"),
        ("Brightness", {"others": {"level": 1}}, "has no input 'level'"),
        ("Brightness", {"output": "dark"}, "has no output dark. Its outputs: pictures"),
        ("Brightness", {"output": "7"}, "has no output 7"),
        ("Blind", {}, r"needs its input 'model' \(MODEL\)"),
        ("EmptyImage", {}, "takes no IMAGE"),
        ("Brightness", {"true_means": "maybe"}, "expected one of unsafe, safe"),
    ],
)
def test_a_node_that_cannot_judge_is_refused(node_judge: Any, node: str, settings: dict, said: str) -> None:
    with pytest.raises(SafetySteeringError, match=said):
        node_judge(node, **settings)


def test_an_answer_that_is_no_verdict_is_none(node_judge: Any) -> None:
    with pytest.raises(SafetySteeringError, match="failed on a video: out of paint"):
        node_judge("Brightness", others={"note": "fail"})(video(1))
    with pytest.raises(SafetySteeringError, match="must be numbers from 0 to 1; it gave 87"):
        node_judge("Blind", output="0", others={"model": 87})(video(1))
    with pytest.raises(SafetySteeringError, match="answered with str"):
        node_judge("Blind", output="0", others={"model": None})(video(1))


def test_no_node_is_called_past_a_hosts_policy(node_judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFETY_STEERING_POLICY", "somewhere.toml")
    with pytest.raises(SafetySteeringError, match="guarded server"):
        node_judge("Brightness")


def test_safety_judge_makes_judges_and_judges(comfy_in_process: Any) -> None:
    from comfy_execution.graph_utils import ExecutionBlocker

    importlib.import_module("safety_steering_pack.bridge.folders").register_folders()
    judges = comfy_in_process.models / "safety_judges"
    judges.mkdir(exist_ok=True)
    (judges / JUDGE_FILE.name).unlink(missing_ok=True)
    (judges / JUDGE_FILE.name).symlink_to(JUDGE_FILE)
    node = importlib.import_module("safety_steering_pack.nodes.research.safety_judge").SafetyJudge
    node = node.PREPARE_CLASS_CLONE({})
    choices = {"judge": "judge_file", "file": JUDGE_FILE.name, "threshold": 0.5}
    own = "the judge's own"
    judge, *nothing = node.execute(8, own, choices).args
    assert all(isinstance(one, ExecutionBlocker) for one in nothing)
    images = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    again, unsafe, scores = node.execute(8, own, choices, images=images, prompt="a fox on blue").args
    assert again.name == judge.name
    said = json.loads(scores)
    assert said["unsafe"] is unsafe
    assert set(said["scores"]) == {"gore", "violence", "drugs"}
    assert said["kept"] is False
    for wrong, match in (
        (None, "The judge is none of nudenet"),
        ({**choices, "file": "../../secret.safetensors"}, "was not found. Put it into models/safety_judges"),
        ({"judge": "clip", "prompts": "safe: a\nbad: b", "threshold": 0.5}, "connect both clip and clip_vision"),
        ({"judge": "node", "inputs": "{", "node_id": ""}, "not valid JSON"),
    ):
        with pytest.raises(SafetySteeringError, match=match):
            node.execute(8, own, wrong)
    with pytest.raises(SafetySteeringError, match=r"weights-inception.*were not found"):
        node.execute(8, "inception", choices)
