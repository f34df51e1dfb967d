"""Help pages in the real frontend, their pictures (renewed by ``--update-docs``), and the words that find the nodes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_server import PACK_FOLDER, ComfyServer
from frontend import run_from_the_button, wait_until_ready
from panels import AB, APPLY, LOADER, MIXER, build, search_nodes
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from small_world_workflows import small_world_folder

JUDGE, REPORT = "SafetySteering_SafetyJudge", "SafetySteering_SteeringReport"
REPO_ROOT = Path(__file__).resolve().parents[2]
PICTURES = REPO_ROOT / "js" / "docs" / "images"
DOCS = f"/extensions/{PACK_FOLDER}/docs"
PICTURE = re.compile(r"!\[[^]]*\]\(([^)]+)\)")
SHARP, MARGIN, COLOURS = 2, 6, 96  # screen pixels a CSS pixel, CSS pixels around the node, colours of a picture
WIDTH = 420
PROMPT = "a fox with falling pistols on a green background"
LOOK_AT = """([id, width, height]) => {
    const node = app.graph.getNodeById(Number(id));
    node.setSize([width, Math.max(height, node.size[1])]);
    app.canvas.links_render_mode = LiteGraph.HIDDEN_LINK;
    app.canvas.ds.offset = [200 - node.pos[0], 200 - node.pos[1]];
    app.canvas.setDirty(true, true);
}"""
WORDS = ("nsfw", "safety", "guardrail", "steering", "censor", "safe", "block unsafe", "moderation", "filter")
FIRST = {"Apply Safety Steering", "Load Safety Vector", "Category Mixer"}


@pytest.fixture(scope="module")
def ui(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """One page for all: Vue nodes, in a window in which the tallest node fits, drawn sharply."""
    context = browser.new_context(viewport={"width": 1600, "height": 1500}, device_scale_factor=SHARP)
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.goto(server.address)
    wait_until_ready(page)
    page.evaluate("app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    yield page
    context.close()


@pytest.fixture(scope="module")
def nodes(server: ComfyServer) -> dict[str, Any]:
    return {name: node for name, node in server.client.object_info().items() if name.startswith("SafetySteering_")}


@pytest.fixture(scope="module")
def graph(ui: Page, nodes: dict[str, Any]) -> dict[str, str]:
    """One of each node, side by side: kind -> id. The mixer stands behind the bundled vector, for its sliders."""
    (choices,) = (spec[1]["options"] for spec in nodes[LOADER]["input"]["required"].values())
    widgets = {
        LOADER: {"vector": next(label for label in choices if "smollm2_135m_portable" in label)},
        JUDGE: {"judge": "open_nsfw"},
    }
    kinds = [LOADER, *(kind for kind in nodes if kind != LOADER)]
    links = {MIXER: {"safety_vector": [0, 0]}}
    parts = [[kind, 600 * i, 0, widgets.get(kind, {}), links.get(kind, {})] for i, kind in enumerate(kinds)]
    return dict(zip(kinds, build(ui, *parts), strict=True))


def small_world(server: ComfyServer) -> list[list[Any]]:
    """The small world, steered, with nodes that show what a run did."""
    small_world_folder(server.base_directory)
    steering = {
        "settings": "manual",
        "gate": "off",
        "strength": 6,
        "intervention": "clamp",
        "norm": "none",
        "window_end": 1,
        "hook_points": "conditioning",
    }
    sampler = {"seed": 7, "steps": 8, "cfg": 3, "sampler_name": "euler", "scheduler": "simple"}
    sampler |= {"control_after_generate": "fixed"}
    prompt = {"positive": [4, 0], "negative": [5, 0], "latent_image": [6, 0]}
    return [
        ["UNETLoader", 0, 0, {"unet_name": "small_wan.safetensors"}],
        ["ModelSamplingSD3", 0, 200, {"shift": 3}, {"model": [0, 0]}],
        [LOADER, 0, 400, {"vector": "small_wan_native_lda.safetensors"}],
        [APPLY, 600, 0, steering, {"model": [1, 0], "safety_vector": [2, 0]}],
        ["SafetySteeringDev_MiniLMTextEncode", 0, 900, {"text": PROMPT}],
        ["SafetySteeringDev_MiniLMTextEncode", 0, 1200, {"text": ""}],
        ["EmptyHunyuanLatentVideo", 0, 1500, {"width": 64, "height": 64, "length": 5}],
        ["VAELoader", 0, 1700, {"vae_name": "small_wan_vae.safetensors"}],
        ["KSampler", 600, 1000, sampler, {"model": [3, 0], **prompt}],
        [APPLY, 600, 2000, {**steering, "strength": 4}, {"model": [1, 0], "safety_vector": [2, 0]}],
        [REPORT, 1200, 0, {}, {"model": [3, 0], "samples": [8, 0]}],
        [AB, 1800, 0, {**sampler, "fps": 4}, {"model": [9, 0], "vae": [7, 0], **prompt}],
    ]


def look_at(page: Page, node_id: str, title: str, height: int = 0) -> Locator:
    """The node on the screen, wide enough to read its widgets, once it stands still."""
    page.evaluate(LOOK_AT, [node_id, WIDTH, height])
    drawn, before = page.locator(f"[data-node-id='{node_id}']"), None
    expect(drawn.get_by_text(title, exact=True)).to_be_visible()
    box = drawn.bounding_box()
    while box != before:
        page.wait_for_timeout(200)
        box, before = drawn.bounding_box(), box
    return drawn


def save_picture(page: Page, drawn: Locator, kind: str) -> None:
    box = drawn.bounding_box()
    assert box is not None
    left, top, width, height = box["x"], box["y"], box["width"], box["height"]
    clip = {"x": left - MARGIN, "y": top - MARGIN, "width": width + 2 * MARGIN, "height": height + 2 * MARGIN}
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURES / picture_name(kind), optimize=True)


def picture_name(kind: str) -> str:
    return f"{kind.partition('_')[2]}.png"


def test_each_node_is_drawn_with_its_inputs_by_name(
    ui: Page, nodes: dict[str, Any], graph: dict[str, str], request: pytest.FixtureRequest
) -> None:
    for kind, node in nodes.items():
        drawn = look_at(ui, graph[kind], node["display_name"])
        names = [name for part in ("required", "optional") for name in node["input"].get(part, {})]
        for name in names[:3] if kind == APPLY else names:  # recommended hides what manual reads
            words = drawn.get_by_text(name, exact=True).or_(drawn.get_by_placeholder(name, exact=True))
            expect(words.first).to_be_visible()
        if request.config.getoption("--update-docs"):
            save_picture(ui, drawn, kind)


@pytest.mark.parametrize("kind", [APPLY, MIXER, JUDGE])
def test_the_info_button_shows_our_page_with_its_picture(
    ui: Page, nodes: dict[str, Any], graph: dict[str, str], kind: str, artifacts: Path
) -> None:
    title = nodes[kind]["display_name"]
    look_at(ui, graph[kind], title).get_by_text(title, exact=True).click()
    ui.get_by_test_id("info-button").click()
    shown = ui.locator(".node-help-content")
    for heading in ("When to use it", "Inputs", "Outputs", "Common mistakes"):
        expect(shown.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    picture = shown.get_by_role("img")
    expect(picture).to_have_attribute("src", re.compile(f"{DOCS}/images/{picture_name(kind)}$"))
    ui.wait_for_function("() => document.querySelector('.node-help-content img')?.naturalWidth > 0")
    ui.screenshot(path=artifacts / f"help_{kind}.png")


def test_every_page_and_its_pictures_are_served(ui: Page, server: ComfyServer, nodes: dict[str, Any]) -> None:
    for kind in nodes:
        page = ui.request.get(f"{server.address}{DOCS}/{kind}.md")
        assert page.status == 200, kind
        pictures = PICTURE.findall(page.text())
        assert pictures, kind
        for picture in pictures:
            served = ui.request.get(f"{server.address}{DOCS}/{picture}")
            assert (served.status, served.headers["content-type"]) == (200, "image/png"), picture


@pytest.mark.both_frontends
def test_the_frontend_has_our_locale(ui: Page, server: ComfyServer, graph: dict[str, str]) -> None:
    served = ui.request.get(f"{server.address}/i18n").json()["en"]
    for file in ("nodeDefs", "settings"):
        ours = json.loads((REPO_ROOT / "locales" / "en" / f"{file}.json").read_text(encoding="utf-8"))
        assert ours.items() <= served[file].items()
    labelled = "id => app.graph.getNodeById(id).inputs.map(input => [input.name, input.localized_name])"
    labels = dict(ui.evaluate(labelled, graph[JUDGE]))
    assert labels["judge.threshold"] == "threshold"  # without a locale: judge.threshold
    assert labels["clip_vision"] == "clip_vision"


def found_by(page: Page, word: str) -> set[str]:
    """The names of the nodes that the node search lists for a word."""
    box = search_nodes(page, "zzqqxx")  # what is listed after this is not left from before
    expect(page.get_by_test_id("no-results")).to_be_visible()
    box.fill(word)
    found = page.get_by_test_id("result-item")
    expect(found.first).to_be_visible()
    names = {text.partition("\n")[0] for text in found.all_inner_texts()}
    box.press("Escape")
    expect(found).to_have_count(0)
    return names


@pytest.mark.parametrize("word", WORDS)
def test_what_people_type_finds_the_nodes(ui: Page, nodes: dict[str, Any], word: str) -> None:
    everything = {node["display_name"] for node in nodes.values()}
    wanted = everything if word in ("safety", "steering") else FIRST
    assert wanted - found_by(ui, word) == set()


def test_pictures_of_nodes_that_show_a_run(
    ui: Page, nodes: dict[str, Any], server: ComfyServer, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--update-docs"):
        pytest.skip("renews pictures; that these nodes show a run is in test_js_runs.py")
    parts = small_world(server)
    ids = build(ui, *parts)
    run_from_the_button(ui)
    kinds = [part[0] for part in parts]
    for kind, height in ((APPLY, 0), (REPORT, 480), (AB, 0)):
        save_picture(ui, look_at(ui, ids[kinds.index(kind)], nodes[kind]["display_name"], height), kind)
