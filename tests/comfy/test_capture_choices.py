"""What Capture Activations lets a user choose: sampler, guider, branch, pooling, labels and a start image."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch
from captures import FEW, LATENT, PROMPTS, SETTINGS, Clip, Darkness, capture, die, interrupted_at, killed, shards
from safety_steering_pack.safety_steering.activations import DISPUTED, SAFE, UNSAFE, Activations
from safety_steering_pack.safety_steering.directions.fitting import FitSettings
from safety_steering_pack.safety_steering.directions.native import fit_vector
from safety_steering_pack.safety_steering.errors import MismatchError, SafetySteeringError
from safety_steering_pack.safety_steering.judges.verdict import Verdict
from safety_steering_pack.safety_steering.prompts.prompt_set import PromptSet
from tiny.models import TINY_MODELS

BLOCK = "block.blocks.2.image"


@pytest.fixture(scope="module")
def wan(comfy_in_process):
    return comfy_in_process.diffusion_model(TINY_MODELS["wan21_t2v"].file_name)


@pytest.fixture(scope="module")
def vae(comfy_in_process):
    import comfy.sd
    import comfy.utils

    model = TINY_MODELS["wan_vae"]
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(comfy_in_process.models / model.folder / model.file_name)))


@pytest.fixture(scope="module", autouse=True)
def run(comfy_in_process):
    module = importlib.import_module("safety_steering_pack.bridge.capture.run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("safety_steering_pack.bridge.sampling.sampling"), "SHARD", 4)
        yield module


@pytest.fixture(scope="module")
def plain(wan, tmp_path_factory):
    """Two pairs, captured with the widgets alone."""
    return capture(tmp_path_factory.mktemp("choices") / "plain", wan, prompts=FEW)


def same_states(first, second, hook_points=("conditioning", BLOCK)):
    return all(
        torch.equal(getattr(first.read(name), kind), getattr(second.read(name), kind))
        for name in hook_points
        for kind in ("pooled", "token")
    )


def cfg_guider(model, negative="", positive="another prompt", cfg=SETTINGS["cfg"]):
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*(Clip().encode_from_tokens_scheduled(text) for text in (positive, negative)))
    guider.set_cfg(cfg)
    return guider


def test_nodes_that_say_what_the_widgets_say_give_the_same_bits(plain, wan, tmp_path):
    import comfy.samplers

    nodes = {
        "sampler": comfy.samplers.sampler_object("euler"),
        "sigmas": comfy.samplers.calculate_sigmas(wan.model.model_sampling, "simple", 2),
        "guider": cfg_guider(wan),
        # what the nodes stand for is not read
        "sampler_name": "heun",
        "scheduler": "karras",
        "steps": 9,
        "cfg": 1.0,
        "negative": "not read",
    }
    assert same_states(plain, capture(tmp_path / "nodes", wan, prompts=FEW, **nodes))


def test_each_of_the_nodes_counts(plain, wan, tmp_path):
    import comfy.samplers

    sampling = wan.model.model_sampling
    changes = {
        "sampler": comfy.samplers.sampler_object("heun"),
        "sigmas": comfy.samplers.calculate_sigmas(sampling, "beta", 3),
        "guider": cfg_guider(wan, negative="dark and blurred"),
    }
    for name, value in changes.items():
        other = capture(tmp_path / name, wan, prompts=FEW, **{name: value})
        assert not torch.equal(other.read(BLOCK).pooled, plain.read(BLOCK).pooled)
        assert other.source.sampling != plain.source.sampling
        with pytest.raises(SafetySteeringError, match="other settings"):
            capture(plain.folder, wan, prompts=FEW, **{name: value})


def test_a_capture_under_nodes_goes_on_where_it_was(wan, tmp_path):
    import comfy.samplers

    def nodes():  # made anew, as they are when a server starts again
        return {"sampler": comfy.samplers.sampler_object("heun"), "guider": cfg_guider(wan, cfg=2.0)}

    first = capture(tmp_path / "a", wan, prompts=FEW, **nodes())
    clip = Clip()
    again = capture(tmp_path / "a", wan, prompts=PROMPTS, clip=clip, **nodes())
    assert len(clip.texts) == 1 + 12
    assert len(again.rows()) == 16
    assert first.source == again.source


def test_other_prompts_of_a_guider_are_not_captured(wan, plain, tmp_path):
    guiders = importlib.import_module("comfy_extras.nodes_custom_sampler")
    texts = [Clip().encode_from_tokens_scheduled(text) for text in ("replaced", "something else altogether", "dark")]
    guider = guiders.Guider_DualCFG(wan)
    guider.set_conds(*texts)
    guider.set_cfg(3.0, 2.0)
    dual = capture(tmp_path / "dual", wan, prompts=FEW, guider=guider)
    assert same_states(dual, plain, ("conditioning",))
    assert guider.original_conds["positive"][0]["cross_attn"] is texts[0][0][0]  # the user's guider is as it was
    assert guider.model_patcher is wan


def test_a_guiders_own_extras_hold_for_every_prompt(wan, run):
    guider = cfg_guider(wan)
    guider.set_conds(
        [[torch.ones(1, 3, 4096), {"guidance": 2.5, "pooled_output": torch.ones(1)}]], [[torch.ones(1), {}]]
    )
    sampling = run.Sampling({"samples": torch.zeros(LATENT)}, **SETTINGS, guider=guider)
    assert sampling.extras == {"guidance": 2.5}


def test_what_cannot_be_sampled_is_said(wan, comfy_in_process, tmp_path):
    other = comfy_in_process.diffusion_model(TINY_MODELS["wan21_t2v"].file_name)
    with pytest.raises(SafetySteeringError, match="guider is for another model"):
        capture(tmp_path / "a", wan, guider=cfg_guider(other))
    with pytest.raises(SafetySteeringError, match=r"sigmas are 0, 0\.5, 1; a run from noise"):
        capture(tmp_path / "b", wan, sigmas=torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(SafetySteeringError, match="never called for the negative branch"):
        capture(tmp_path / "c", wan, cfg=1.0, choices={"branch": "negative"})


def test_a_branch_is_the_side_that_is_read(plain, wan, tmp_path):
    found = {
        branch: capture(
            tmp_path / branch, wan, prompts=FEW, negative="dark and blurred", choices={"branch": branch}
        ).read(BLOCK)
        for branch in ("positive", "negative", "both")
    }
    texts = Activations.open(tmp_path / "negative").read("conditioning").pooled
    assert len(texts.unique(dim=0)) == 1  # the same negative prompt in every run
    torch.testing.assert_close(found["both"].pooled, (found["positive"].pooled + found["negative"].pooled) / 2)
    assert Activations.open(tmp_path / "negative").source.branch == "negative"


def test_frames_are_rows_whose_mean_is_the_video(plain, wan, tmp_path):
    frames = capture(tmp_path / "frames", wan, prompts=FEW, choices={"pooling": "per_frame"})
    assert "conditioning" not in frames.source.hook_points
    rows = frames.rows()
    assert [row.id.rsplit("/", 1)[1] for row in rows] == ["frame0", "frame1"] * 4
    assert [row.video for row in rows[::2]] == [row.id for row in plain.rows()]
    pooled = frames.read(BLOCK).pooled
    torch.testing.assert_close((pooled[0::2] + pooled[1::2]) / 2, plain.read(BLOCK).pooled)
    assert not torch.equal(pooled[0::2], pooled[1::2])
    clip = Clip()
    capture(tmp_path / "frames", wan, prompts=FEW, clip=clip, choices={"pooling": "per_frame"})
    assert clip.texts == [""]  # nothing was missing
    with pytest.raises(MismatchError, match="conditioning"):
        capture(tmp_path / "no", wan, hook_points="conditioning", choices={"pooling": "per_frame"})


def test_text_tokens_are_a_stream_of_their_own(comfy_in_process, wan, run, tmp_path):
    flux = comfy_in_process.diffusion_model(TINY_MODELS["flux"].file_name)
    shape = run.patcher_shape(flux)
    chosen = run.choose_hook_points("all", shape, "text_tokens")
    assert chosen[0] == "conditioning"
    assert chosen[1:] == tuple(name for name in shape.widths if name.endswith(".text"))
    assert run.choose_hook_points("0-1", shape, "text_tokens") == chosen[1:]
    seen = []
    block = flux.model.diffusion_model.double_blocks[1]
    handle = block.register_forward_hook(lambda module, inputs, output: seen.append(output[1].double().clone()))
    try:
        name = "block.double_blocks.1.text"
        options = {
            "hook_points": name,
            "bins": 1,
            "steps": 1,
            "cfg": 1.0,
            "latent": {"samples": torch.zeros(1, 16, 8, 8)},
        }
        clip = Clip(lambda: {"pooled_output": torch.zeros(1, 768)})
        texts = capture(tmp_path / "t", flux, clip=clip, prompts=FEW, choices={"pooling": "text_tokens"}, **options)
    finally:
        handle.remove()
    rows = texts.rows()
    for row, pooled, h in zip(rows, texts.read(name).pooled, seen, strict=True):
        torch.testing.assert_close(pooled[0].double(), h[0, : row.length].mean(dim=0), rtol=1e-5, atol=1e-6)
    with pytest.raises(SafetySteeringError, match="carry no text tokens of their own"):
        capture(tmp_path / "no", wan, hook_points="0.5", choices={"pooling": "text_tokens"})


@pytest.fixture(scope="module")
def brightness(wan, vae, run, tmp_path_factory):
    """How bright each of PROMPTS' videos is, by the row's id, and a threshold in the middle."""
    probe = Darkness(-1.0)
    taken = capture(tmp_path_factory.mktemp("probe") / "a", wan, choices={"labels": labels("judge", probe, vae)})
    assert {row.label for row in taken.rows()} == {SAFE}
    assert [seen[1:] for seen in probe.seen] == [(prompt.text, False) for prompt in run.list_prompts(PROMPTS)]
    assert {seen[0] for seen in probe.seen} == {(5, 32, 32, 3)}
    shown = probe.brightness
    return dict(zip((row.id for row in taken.rows()), shown, strict=True)), sorted(shown)[7:9]


def labels(rule, judge=None, vae=None):
    return importlib.import_module("safety_steering_pack.bridge.capture.run").Labels(rule, judge, vae)


def test_a_judge_labels_what_was_generated_and_disputed_rows_are_not_fitted(wan, vae, brightness, tmp_path):
    values, middle = brightness
    judge = Darkness(sum(middle) / 2)
    seen = {id: UNSAFE if value < judge.threshold else SAFE for id, value in values.items()}
    judged = capture(tmp_path / "judge", wan, choices={"labels": labels("judge", judge, vae)})
    assert {row.id: row.label for row in judged.rows()} == seen
    assert judged.source.sampling["judge"] == judge.name

    both = capture(tmp_path / "agree", wan, choices={"labels": labels("agree", judge, vae)})
    said = {row.id: UNSAFE if "/unsafe/" in row.id else SAFE for row in both.rows()}
    assert {row.id: row.label for row in both.rows()} == {
        id: label if label == seen[id] else DISPUTED for id, label in said.items()
    }
    assert same_states(judged, both)
    train = [row for row in both.rows() if row.split == "train"]
    agreed = {label: sum(row.label == label for row in train) for label in (SAFE, UNSAFE, DISPUTED)}
    assert min(agreed.values()) > 0, "the random videos should give some of each"
    with pytest.raises(SafetySteeringError, match="other settings"):
        capture(tmp_path / "agree", wan, choices={"labels": labels("agree", Darkness(0.1), vae)})


def test_a_fit_reads_only_rows_that_agree(wan, vae, tmp_path):
    prompts = PromptSet(tuple(replace(row, category="violence") for row in PROMPTS.rows[:4]))
    doubted = prompts.rows[0].unsafe

    class Doubt(Darkness):
        def __call__(self, video, prompt="", skip_start=False):
            return Verdict({"doubt": 0.5}, "flower" not in prompt and prompt != doubted)

    choices = {"labels": labels("agree", Doubt(0.0), vae)}
    both = capture(tmp_path / "a", wan, prompts=prompts, choices=choices, hook_points=BLOCK, bins=1)
    assert [row.label for row in both.rows()] == [DISPUTED, SAFE, *[UNSAFE, SAFE] * 3]
    (found,) = fit_vector(both, FitSettings()).table
    assert (found["n_unsafe"], found["n_safe"]) == (3, 3)


def test_a_killed_capture_with_a_judge_goes_on_to_the_same_bits(wan, vae, brightness, tmp_path):
    judge = Darkness(sum(brightness[1]) / 2)
    choices = {"labels": labels("agree", judge, vae)}
    whole = capture(tmp_path / "whole", wan, choices=choices)

    class Killer(Darkness):
        def __call__(self, video, prompt="", skip_start=False):
            if len(self.seen) == 5:
                die()
            return super().__call__(video, prompt, skip_start)

    folder = tmp_path / "killed"
    doomed = {"labels": labels("agree", Killer(judge.threshold), vae)}
    killed(lambda: capture(folder, wan, choices=doomed))
    assert len(Activations.open(folder).rows()) == 4
    killed(lambda: capture(folder, interrupted_at(wan, 2 * 5, die), choices=choices))
    assert len(Activations.open(folder).rows()) == 8
    capture(folder, wan, choices=choices)
    assert shards(folder) == shards(whole.folder)


def test_labels_by_a_judge_need_one(vae):
    with pytest.raises(SafetySteeringError, match="judge and vae is not connected"):
        labels("judge")
    with pytest.raises(SafetySteeringError, match="but vae is not connected"):
        labels("agree", Darkness(0.5))
    with pytest.raises(SafetySteeringError, match="labels are 'guess'"):
        labels("guess")


def image_to_video(vae, color):
    """What WanImageToVideo gives for a start image of one grey: template conditioning and latent."""
    module = importlib.import_module("comfy_extras.nodes_wan")
    vision = importlib.import_module("comfy.clip_vision").Output()
    vision.penultimate_hidden_states = torch.full((1, 257, 1280), color)
    text = Clip().encode_from_tokens_scheduled("any prompt")
    image = torch.full((1, 32, 32, 3), color)
    positive, _, latent = module.WanImageToVideo.execute(
        text, text, vae, 32, 32, 5, 1, start_image=image, clip_vision_output=vision
    ).args
    return positive, latent


def test_image_to_video_is_captured_with_its_start_image(comfy_in_process, vae, run, tmp_path):
    import comfy.sample

    model = comfy_in_process.diffusion_model(TINY_MODELS["wan21_i2v"].file_name)
    found = {}
    for color in (0.2, 0.8):
        template, latent = image_to_video(vae, color)
        judge = Darkness(0.5)
        choices = {"labels": labels("judge", judge, vae)}
        options = {"prompts": FEW, "template": template, "latent": latent, "choices": choices}
        found[color] = capture(tmp_path / str(color), model, **options)
        assert all(skip_start for _, _, skip_start in judge.seen)  # the given frame is not held against the model
        clip = Clip()
        capture(tmp_path / str(color), model, clip=clip, **options)
        assert clip.texts == [""]
    states = [activations.read(BLOCK).pooled for activations in found.values()]
    assert not torch.allclose(*states)
    assert bool(states[0].isfinite().all())
    with pytest.raises(SafetySteeringError, match="other settings"):  # another start image is another capture
        capture(tmp_path / "0.2", model, **options)

    # the last of them again, by KSampler's own way and a hook of our own
    from safety_steering_pack.bridge.sampling.sampling import encode_prompt, noise_seed

    seen = []
    block = model.model.diffusion_model.blocks[2]
    handle = block.register_forward_hook(lambda module, inputs, output: seen.append(output.double().clone()))
    try:
        prompt = run.list_prompts(FEW)[-1]
        positive, negative = (encode_prompt(Clip(), text, template) for text in (prompt.text, ""))
        samples = latent["samples"]
        noise = comfy.sample.prepare_noise(samples, noise_seed(7, prompt.row))
        names = ("euler", "simple", positive, negative)
        comfy.sample.sample(model, noise, 2, 3.0, *names, samples, seed=noise_seed(7, prompt.row), disable_pbar=True)
    finally:
        handle.remove()
    expected = torch.stack([h[1].mean(dim=0) for h in reversed(seen)])  # core runs [negative, positive]
    torch.testing.assert_close(states[1][-1].double(), expected, rtol=1e-5, atol=1e-6)


def test_the_node_takes_the_choices_and_says_what_it_kept(wan, vae, monkeypatch, tmp_path):
    module = importlib.import_module("safety_steering_pack.nodes.research.capture_activations")
    monkeypatch.setattr(module, "activations_path", lambda name: tmp_path / name)
    node = module.CaptureActivations
    ids = {entry.id for entry in node.define_schema().inputs}
    chosen = {
        "prompts": FEW,
        "latent": {"samples": torch.zeros(LATENT)},
        "folder": "mine",
        "hook_points": BLOCK,
        "sigma_bins": 2,
        **SETTINGS,
        "pooling": "per_frame",
        "branch": "both",
        "labels": "agree",
        "judge": Darkness(2.0),
        "vae": vae,
    }
    assert chosen.keys() <= ids
    result = node.PREPARE_CLASS_CLONE({}).execute(model=wan, clip=Clip(), **chosen)
    source = result.args[0].source
    assert (source.branch, list(source.hook_points)) == ("both", [BLOCK])
    size = f"{result.args[0].bytes_on_disk / 1e6:.1f} MB on disk"
    told = f"8 frames (4 disputed, 4 unsafe); hook points: 1; noise levels: 2; {size}"
    assert result.ui.as_dict()["text"] == (told,)
