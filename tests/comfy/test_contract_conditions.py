"""Contract line 6: precisions, batches, guidance, regional and zeroed prompts, context windows, denoise, guiders."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from steered_graphs import FAMILIES, chain, patch, plain, sample, sampler_of, steer

TASKS = pytest.mark.parametrize("key", FAMILIES)


def acts(server, key, before=None, **options):
    """The steered run, checked: it acts at blocks and at the conditioning, and changes every sample of the batch."""
    before = before or chain()
    options = sampler_of(key) | options
    unsteered = sample(server, key, before, **options).latent
    steered = sample(server, key, chain(before, steer(server, key, hook_points="all")), **options)
    assert torch.isfinite(steered.latent).all()
    assert steered.trace["status"] == "acted"
    assert {hook["hook_point"] for call in steered.calls for hook in call["hooks"]} >= {
        "conditioning",
        FAMILIES[key].block,
    }
    changed = (steered.latent - unsteered).flatten(1).abs().amax(dim=1)
    assert (changed > 1e-2).all()
    return steered


def rows(result):
    """How many rows of each role the model saw in a run."""
    total = Counter()
    for call in result.calls:
        total.update(call["rows"])
    return total


@pytest.mark.parametrize("compute", ["fp16", "bf16"])
@TASKS
def test_6_compute_in_half_precision(server, key, compute):
    acts(server, key, patch("ModelComputeDtype", dtype=compute))


@pytest.mark.parametrize("compute", [None, "bf16"])
@TASKS
def test_6_fp8_weights(server, key, compute):
    acts(server, key, compute and patch("ModelComputeDtype", dtype=compute), weight_dtype="fp8_e4m3fn")


@TASKS
def test_6_batch_of_three(server, key):
    steered = acts(server, key, batch_size=3, cfg=3.0)
    assert steered.latent.shape[0] == 3
    assert rows(steered) == {"positive": 6, "negative": 6}


@TASKS
def test_6_cfg_1(server, key):
    assert rows(acts(server, key, cfg=1.0)) == {"positive": 2}


@TASKS
def test_6_denoise_0_4(server, key):
    acts(server, key, denoise=0.4)


def by_area(graph, prompts):
    """A second positive prompt for the left half of the picture."""
    positive, negative = prompts
    left = graph.add("ConditioningSetArea", conditioning=negative, width=64, height=128, x=0, y=0, strength=1.0)
    return [graph.add("ConditioningCombine", conditioning_1=positive, conditioning_2=left[0])[0], negative]


def by_mask(graph, prompts):
    """A second positive prompt for the whole picture, weighed by a mask."""
    positive, negative = prompts
    mask = graph.add("SolidMask", value=0.5, width=64, height=64)
    masked = {"mask": mask[0], "strength": 1.0, "set_cond_area": "default"}
    other = graph.add("ConditioningSetMask", masked, conditioning=negative)
    return [graph.add("ConditioningCombine", conditioning_1=positive, conditioning_2=other[0])[0], negative]


def by_time(graph, prompts):
    """One positive prompt for the first half of denoising, another for the second."""
    early = graph.add("ConditioningSetTimestepRange", conditioning=prompts[0], start=0.0, end=0.5)
    late = graph.add("ConditioningSetTimestepRange", conditioning=prompts[1], start=0.5, end=1.0)
    return [graph.add("ConditioningCombine", conditioning_1=early[0], conditioning_2=late[0])[0], prompts[1]]


# a picture wide enough that the area is a part of it; core counts an area's eighths in latent cells
WIDE = {"wan": {"width": 128, "height": 128}, "flux": {"width": 128, "height": 128}}


@pytest.mark.parametrize("rewire", [by_area, by_mask, by_time])
@pytest.mark.parametrize("key", WIDE)
def test_6_regional_prompts(server, key, rewire):
    acts(server, key, rewire=rewire, cfg=3.0, **WIDE[key])


@pytest.mark.parametrize("rewire", [by_area, by_mask])
@pytest.mark.parametrize("key", WIDE)
def test_6_regional_prompts_keep_their_roles(server, key, rewire):
    # core copies the positive area into the negative conditioning, with the identity of the positive one
    expected = {by_area: {"positive": 4, "negative": 4}, by_mask: {"positive": 4, "negative": 2}}[rewire]
    options = {"rewire": rewire, "cfg": 3.0, **WIDE[key]}
    results = {
        branch: sample(server, key, steer(server, key, branch=branch), **options) for branch in ("positive", "both")
    }
    for result in results.values():
        assert rows(result) == expected
    assert not torch.equal(results["positive"].latent, results["both"].latent)


def zeroed(graph, prompts):
    return [graph.add("ConditioningZeroOut", conditioning=prompt)[0] for prompt in prompts]


def negative_zeroed(graph, prompts):
    return [prompts[0], zeroed(graph, prompts[1:])[0]]


@pytest.mark.parametrize("norm", ["none", "token"])
@TASKS
def test_6_zeroed_prompts_leave_nothing_to_edit(server, key, norm):
    options = {"rewire": zeroed, "cfg": 3.0, **sampler_of(key)}
    steered = sample(server, key, steer(server, key, hook_points="conditioning", norm=norm), **options)
    assert steered.trace["status"] == "nothing to edit"
    assert torch.equal(steered.latent, plain(server, key, **options))
    # a block has tokens all the same
    assert sample(server, key, steer(server, key), **options).trace["status"] == "acted"


@TASKS
def test_6_a_zeroed_negative_prompt_leaves_the_positive_one_to_edit(server, key):
    options = {"rewire": negative_zeroed, "cfg": 3.0, **sampler_of(key)}
    steered = sample(server, key, steer(server, key, hook_points="conditioning"), **options)
    assert steered.trace["status"] == "acted"
    assert not torch.equal(steered.latent, plain(server, key, **options))


WINDOWS = {
    "context_schedule": "standard_static",
    "context_stride": 1,
    "closed_loop": False,
    "fuse_method": "pyramid",
    "freenoise": False,
    "retain_first_frame": False,
    "split_conds_to_windows": False,
}


@pytest.mark.parametrize(
    ("key", "node", "sizes", "length"),
    [
        ("wan", "WanContextWindowsManual", {"context_length": 17, "context_overlap": 8}, 33),
        ("wan_i2v", "WanContextWindowsManual", {"context_length": 17, "context_overlap": 8}, 33),
        ("wan22_i2v", "WanContextWindowsManual", {"context_length": 17, "context_overlap": 8}, 33),
        ("ltxv", "LTXVContextWindows", {"context_length": 25, "context_overlap": 8}, 49),
        ("ltxv_i2v", "LTXVContextWindows", {"context_length": 25, "context_overlap": 8}, 49),
    ],
)
def test_6_context_windows(server, key, node, sizes, length):
    if node not in server.client.object_info():
        pytest.skip(f"this ComfyUI has no {node}")
    windows = patch(node, WINDOWS, **sizes)
    steered = acts(server, key, windows, length=length, cfg=3.0)
    assert len(steered.calls) > 2, "more calls than steps: the model ran once a window"
    after = sample(server, key, chain(steer(server, key, hook_points="all"), windows), length=length, cfg=3.0)
    assert torch.equal(after.latent, steered.latent)


def basic(graph, model, prompts, cfg):
    return graph.add("BasicGuider", model=model, conditioning=prompts[0])[0]


def dual_cfg(style):
    def guider(graph, model, prompts, cfg):
        conds = {"cond1": prompts[0], "cond2": prompts[1], "negative": prompts[1]}
        return graph.add("DualCFGGuider", conds, model=model, cfg_conds=cfg, cfg_cond2_negative=2.0, style=style)[0]

    return guider


def dual_model(*steered):
    """Dual Model CFG Guider, with the steered model at these inputs and the loader's own at the other."""

    def guider(graph, model, prompts, cfg):
        bare = graph.add("ModelComputeDtype", model=["1", 0], dtype="default")[0]
        models = {name: model if name in steered else bare for name in ("model", "model_negative")}
        return graph.add("DualModelGuider", models, positive=prompts[0], negative=prompts[1], cfg=cfg)[0]

    return guider


MAIN_MODEL, OTHER_MODEL = dual_model("model"), dual_model("model_negative")
BOTH_MODELS = dual_model("model", "model_negative")


@pytest.mark.parametrize("key", ["wan", "ltxv_i2v", "flux"])
def test_5_an_apply_that_core_never_asks_fails_closed(server, key):
    with pytest.raises(RuntimeError, match=r"NotSteeredError.*took its nodes from another model"):
        sample(server, key, steer(server, key), guider=OTHER_MODEL, cfg=3.0)
    assert torch.equal(sample(server, key).latent, plain(server, key))
    off = sample(server, key, steer(server, key, strength=0.0), guider=OTHER_MODEL, cfg=3.0)
    assert torch.equal(off.latent, plain(server, key, guider=OTHER_MODEL, cfg=3.0))
    assert acts(server, key, guider=BOTH_MODELS, cfg=3.0).trace["warnings"] == []


@pytest.mark.parametrize(
    ("guider", "expected"),
    [
        (basic, {"positive": 2}),
        (dual_cfg("regular"), {"positive": 2, "middle": 2, "negative": 2}),
        (dual_cfg("nested"), {"positive": 2, "middle": 2, "negative": 2}),
        (MAIN_MODEL, {"positive": 2, "negative": 2}),
    ],
    ids=["basic", "dual cfg", "dual cfg nested", "dual model"],
)
@pytest.mark.parametrize("key", ["wan", "ltxv_i2v", "flux"])
def test_6_other_guiders(server, key, guider, expected):
    options = {"guider": guider, "cfg": 3.0}
    steered = acts(server, key, **options)
    assert rows(steered) == expected
    assert all(call["hooks"] for call in steered.calls)
    positive = sample(server, key, steer(server, key, branch="positive"), **options)
    assert positive.trace["status"] == "acted"
