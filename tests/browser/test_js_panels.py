"""What js/ draws on the nodes: sliders, cards, strips. The widgets stay the truth, on Vue nodes and classic canvas."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_server import PACK_FOLDER, ComfyServer
from frontend import api_prompt, saved_workflow, wait_until_ready
from panels import APPLY, LOADER, MIXER, MODES, add_by_search, build, opened, panel, sliders, widgets
from playwright.sync_api import Browser, Page, expect
from safety_steering_pack.safety_steering.vectors.mix import parse_mix, resolve_mix
from steered_graphs import FAMILIES, put_vector
from tiny.models import TINY_MODELS

CATEGORIES = ("violence", "gore", "weapons")
CHAIN = [
    [LOADER, 0, 0, {"vector": "three.safetensors"}],
    [MIXER, 460, 0, {}, {"safety_vector": [0, 0]}],
    [APPLY, 920, 0, {"settings": "manual", "window_end": 0.5}, {"safety_vector": [1, 0], "model": [3, 0]}],
    ["UNETLoader", 0, 420, {"unet_name": TINY_MODELS["wan21_t2v"].file_name}],
]
TRACKER = "app.extensionManager.workflow.activeWorkflow.changeTracker"
STATE = f"""() => ({{ loading: {TRACKER}._restoringState, steps: {TRACKER}.undoQueue.length,
    sizes: app.graph.nodes.map(node => [...node.size]) }})"""
# when undo has loaded: what is pressed before is lost, or loads at the same time
RESTORED = f"steps => {TRACKER}.redoQueue.length === steps && !{TRACKER}._restoringState"
FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"


@pytest.fixture(scope="module")
def vectors(server: ComfyServer) -> Path:
    """The folder of vectors, with one of three categories and one for another model."""
    put_vector(server, "three", FAMILIES["wan"].vector(categories=CATEGORIES))
    put_vector(server, "other", FAMILIES["ltxv"].vector())
    return server.models / "safety_vectors"


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def ui(browser: Browser, server: ComfyServer, vectors: Path, mode: str) -> Iterator[Page]:
    with opened(browser, server.address, mode) as page:
        yield page


@pytest.fixture
def mixer(ui: Page) -> Page:
    """The chain of nodes, with the sliders drawn."""
    build(ui, *CHAIN)
    expect(sliders(ui)).to_have_count(3)
    ui.wait_for_function("app.graph.nodes.some(node => node.properties.safety_vector?.sha256)")
    settle(ui)
    return ui


def settle(page: Page) -> None:
    """Wait until no undo or redo loads, the nodes have their size, and the step of undo that belongs to it is made."""
    now, before = page.evaluate(STATE), None
    while now["loading"] or now != before:
        page.wait_for_timeout(700)
        now, before = page.evaluate(STATE), now


def mix_of(page: Page) -> tuple[str, str]:
    (found,) = widgets(page, MIXER)
    return found["preset"], found["mix"]


def drag(page: Page, number: int, share: float) -> None:
    """Drag a slider's thumb to a share of its way, once the node stands still."""
    box, before = sliders(page).nth(number).bounding_box(), None
    while box != before:
        page.wait_for_timeout(100)
        box, before = sliders(page).nth(number).bounding_box(), box
    assert box is not None
    inset = 7 * box["height"] / 22
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + inset + share * (box["width"] - 2 * inset), y, steps=4)
    page.mouse.up()


@pytest.mark.both_frontends
def test_sliders_write_the_string_and_nothing_else_does(mixer: Page, mode: str, artifacts: Path) -> None:
    assert mix_of(mixer) == ("standard", "")  # drawing has written nothing
    assert [sliders(mixer).nth(i).get_attribute("aria-label") for i in range(3)] == list(CATEGORIES)
    drag(mixer, 1, 0.75)
    assert mix_of(mixer) == ("custom", "violence=1, gore=1.5, weapons=1")
    mixer.screenshot(path=artifacts / f"js_panels_{mode}.png")
    (exported,) = [node for node in api_prompt(mixer).values() if node["class_type"] == MIXER]
    assert exported["inputs"]["mix"] == "violence=1, gore=1.5, weapons=1"


def test_the_keyboard_reaches_the_sliders(mixer: Page) -> None:
    sliders(mixer).nth(0).evaluate("slider => slider.focus()")
    for key in ("Home", "ArrowRight", "ArrowUp", "PageUp", "ArrowLeft"):
        mixer.keyboard.press(key)
    mixer.keyboard.press("Tab")
    assert mixer.evaluate("document.activeElement.getAttribute('aria-label')") == "gore"
    mixer.keyboard.press("End")
    assert mix_of(mixer) == ("custom", "violence=0.55, gore=2, weapons=1")
    mixer.keyboard.press("Shift+Tab")
    assert mixer.evaluate("document.activeElement.getAttribute('aria-label')") == "violence"


def test_the_string_moves_the_sliders_and_keeps_what_it_does_not_know(mixer: Page) -> None:
    build(mixer, CHAIN[0], [MIXER, 460, 0, {"mix": "gore=-1.25, hate=3"}, {"safety_vector": [0, 0]}])
    weights = panel(mixer, "Category weights").locator(".ss-weight")
    expect(weights).to_have_text(["1", "-1.25", "1"])
    expect(panel(mixer, "Category weights").get_by_text("the vector lacks: hate")).to_be_visible()
    drag(mixer, 2, 0.25)
    assert mix_of(mixer) == ("custom", "violence=1, gore=-1.25, weapons=0.5, hate=3")
    choose = """preset => { const node = app.graph.nodes.find(node => node.type === "SafetySteering_CategoryMixer");
        const widget = node.widgets.find(widget => widget.name === "preset");
        widget.value = preset; widget.callback(preset, app.canvas, node); }"""
    mixer.evaluate(choose, "strict")
    assert mix_of(mixer) == ("strict", "hate=3")
    expect(weights).to_have_text(["1.5", "1.5", "1.5"])
    mixer.evaluate(choose, "custom")
    assert mix_of(mixer) == ("custom", "violence=1.5, gore=1.5, weapons=1.5, hate=3")


def test_a_string_that_does_not_read_is_said_and_left_alone(mixer: Page) -> None:
    build(mixer, CHAIN[0], [MIXER, 460, 0, {"mix": "violence = lots"}, {"safety_vector": [0, 0]}])
    expect(panel(mixer, "Category weights").get_by_text("The mix does not read")).to_be_visible()
    assert mix_of(mixer) == ("standard", "violence = lots")


@pytest.mark.both_frontends
def test_undo_redo_copy_paste_and_saving_keep_the_values(mixer: Page) -> None:
    drag(mixer, 0, 0.25)
    moved = ("custom", "violence=0.5, gore=1, weapons=1")
    assert mix_of(mixer) == moved
    mixer.keyboard.press("Control+z")
    mixer.wait_for_function(RESTORED, arg=1)
    assert mix_of(mixer) == ("standard", "")
    mixer.keyboard.press("Control+y")
    mixer.wait_for_function(RESTORED, arg=0)
    assert mix_of(mixer) == moved
    expect(sliders(mixer).nth(0)).to_have_attribute("aria-valuenow", "0.5")
    drag(mixer, 1, 0.5)  # the node that redo has made is the one on the screen
    drag(mixer, 1, 1.0)
    assert mix_of(mixer) == ("custom", "violence=0.5, gore=2, weapons=1")

    saved = saved_workflow(mixer)
    stored = next(node for node in saved["nodes"] if node["type"] == MIXER)
    assert stored["widgets_values"] == ["custom", "violence=0.5, gore=2, weapons=1"]
    mixer.evaluate("""() => { const node = app.graph.nodes.find(node => node.type === "SafetySteering_CategoryMixer");
        app.canvas.selectNode(node); app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard(); }""")
    assert [one["mix"] for one in widgets(mixer, MIXER)] == ["violence=0.5, gore=2, weapons=1"] * 2
    mixer.evaluate("workflow => app.loadGraphData(workflow, true, true, 'loaded')", saved)
    assert mix_of(mixer) == ("custom", "violence=0.5, gore=2, weapons=1")
    expect(sliders(mixer).nth(1)).to_have_attribute("aria-valuenow", "2")


def test_a_click_and_a_slow_key_after_undo_leave_redo(mixer: Page) -> None:
    """The frontend looks for changes at both, and would find what loading has made of the nodes."""
    drag(mixer, 0, 0.25)
    mixer.keyboard.press("Control+z")
    mixer.wait_for_function(RESTORED, arg=1)
    mixer.mouse.click(1200, 850)
    mixer.evaluate(FRAMES)
    mixer.keyboard.down("Control")
    mixer.evaluate(FRAMES)
    mixer.keyboard.press("Shift")
    mixer.evaluate(FRAMES)
    assert mixer.evaluate(RESTORED, 1)
    mixer.keyboard.press("y")
    mixer.keyboard.up("Control")
    mixer.wait_for_function(RESTORED, arg=0)
    assert mix_of(mixer) == ("custom", "violence=0.5, gore=1, weapons=1")
    drag(mixer, 1, 0.75)  # the user's own change is one step
    mixer.keyboard.press("Control+z")
    mixer.wait_for_function(RESTORED, arg=1)
    assert mix_of(mixer) == ("custom", "violence=0.5, gore=1, weapons=1")
    drag(mixer, 2, 0.75)  # and ends redo
    assert mix_of(mixer) == ("custom", "violence=0.5, gore=1, weapons=1.5")
    assert mixer.evaluate(RESTORED, 0)
    mixer.keyboard.press("Control+z")
    mixer.wait_for_function(RESTORED, arg=1)
    assert mix_of(mixer) == ("custom", "violence=0.5, gore=1, weapons=1")


def test_the_rule_for_weights_is_the_one_in_python(ui: Page, mode: str) -> None:
    if mode == "classic":
        pytest.skip("the rule is the same module in both")
    texts = [
        "",
        "violence=1",
        "gore=.5, hate=-2",
        "a=1,",
        "violence=1e-1",
        "violence=1=2",
        "violence",
        "violence=1,violence=2",
    ]
    rule = f"""async ([preset, text, names]) => {{
        const rule = await import("/extensions/{PACK_FOLDER}/lib/mix.js");
        const written = rule.parseMix(text);
        const suggested = rule.suggestedMix(names, {{}});
        return written && Object.fromEntries(rule.resolveMix(preset, written, suggested).known);
    }}"""
    for text in texts:
        for preset in ("off", "light", "standard", "strict"):
            found: Any = ui.evaluate(rule, [preset, text, list(CATEGORIES)])
            try:
                parse_mix(text)
            except Exception:
                assert found is None, text
                continue
            try:
                expected = dict(resolve_mix(preset, text, CATEGORIES).weights)
            except Exception:  # only names that the vector lacks: the run says so
                continue
            assert found == pytest.approx(expected), (preset, text)


def test_the_card_says_what_the_vector_is_and_the_workflow_keeps_its_hash(mixer: Page, vectors: Path) -> None:
    card = panel(mixer, "Safety vector")
    expect(card.get_by_text("violence, gore, weapons")).to_be_visible()
    expect(card.get_by_text("on no model yet: judge it yourself")).to_be_visible()
    expect(card.get_by_text("Apache-2.0")).to_be_visible()
    kept = mixer.evaluate("app.graph.serialize().nodes.find(n => n.type.endsWith('LoadSafetyVector')).properties")
    assert kept["safety_vector"]["file"] == "three.safetensors"
    assert len(kept["safety_vector"]["sha256"]) == 64
    # the graph was built with the bare file name, which the frontend would mark as a missing model
    (loader,) = widgets(mixer, LOADER)
    assert loader["vector"].startswith("three.safetensors (wan")
    assert not mixer.evaluate("app.graph.nodes.some(node => node.has_errors)")


def test_a_missing_vector_shows_its_name_hash_and_origin(ui: Page, vectors: Path, mode: str, artifacts: Path) -> None:
    build(ui, [LOADER, 0, 0, {}])
    workflow = saved_workflow(ui)
    (node,) = workflow["nodes"]
    name = f"lost_{mode}.safetensors"
    record = {"file": name, "sha256": "5afe" * 16, "fits": "wan, umt5xxl.last", "origin": "fitted by the studio"}
    node["widgets_values"] = [f"{name} (wan, umt5xxl.last)"]
    node["properties"]["safety_vector"] = record
    ui.evaluate("workflow => app.loadGraphData(workflow, true, true, 'lost')", workflow)
    message = panel(ui, "Safety vector").get_by_role("alert")
    for words in ("This safety vector is missing", name, "5afe" * 16, "Where from: fitted by the studio"):
        expect(message.get_by_text(words, exact=words == name)).to_be_visible()
    ui.screenshot(path=artifacts / f"js_missing_{mode}.png")
    shutil.copyfile(vectors / "three.safetensors", vectors / name)
    message.get_by_role("button", name="Look again").click()
    expect(panel(ui, "Safety vector").get_by_text("another version of the file")).to_be_visible()
    expect(panel(ui, "Safety vector").get_by_text("violence, gore, weapons")).to_be_visible()
    assert saved_workflow(ui)["nodes"][0]["properties"]["safety_vector"] == record


@pytest.mark.parametrize(
    ("steered", "reads", "words"),
    [
        ([2], [], "Steers block 2 of 4"),
        ([], [1], "Steers what block 1 of 4 reads"),
        ([0, 1], [0, 1, 2, 3], "Steers 2 of 4 blocks and what 4 of 4 blocks read"),
    ],
)
def test_the_strip_tells_what_blocks_write_from_what_they_read(
    ui: Page, steered: list[int], reads: list[int], words: str
) -> None:
    draw = f"""async (blocks) => {{
        const strip = await import("/extensions/{PACK_FOLDER}/lib/depth_strip.js");
        const parts = strip.drawDepth({{ vector: {{}}, states: [], blocks }}, false);
        return [parts.map((part) => part.textContent).join(""), parts[0].querySelectorAll(".ss-steered").length];
    }}"""
    told: Any = ui.evaluate(draw, [{"list": "blocks", "count": 4, "steered": steered, "reads": reads}])
    assert told == [words, len({*steered, *reads})]


@pytest.mark.both_frontends
def test_the_strip_shows_where_it_acts_and_what_does_not_fit(mixer: Page, mode: str, artifacts: Path) -> None:
    strip = panel(mixer, "Steering")
    expect(strip.get_by_text("Steers block 2 of 4")).to_be_visible()
    expect(strip.get_by_text("0 to 50 % of denoising")).to_be_visible()
    expect(strip.locator(".ss-cell.ss-steered")).to_have_count(1)
    expect(strip.get_by_role("alert")).to_have_count(0)
    build(mixer, [LOADER, 0, 0, {"vector": "other.safetensors"}], *CHAIN[1:])
    expect(strip.get_by_role("alert")).to_contain_text("This vector is for ltxv")
    mixer.screenshot(path=artifacts / f"js_mismatch_{mode}.png")


CHOOSE = """([type, name, value]) => { const node = app.graph.nodes.find(node => node.type === type);
    const widget = node.widgets.find(widget => widget.name === name);
    widget.value = value; widget.callback(value, app.canvas, node); }"""
SHOWN = """type => app.graph.nodes.find(node => node.type === type).widgets
    .filter(widget => widget.serialize !== false && !widget.hidden).map(widget => widget.name)"""


def test_recommended_hides_what_only_manual_reads(ui: Page, mode: str) -> None:
    build(ui, [APPLY, 0, 0, {}])
    ui.wait_for_function(f"({SHOWN})('{APPLY}').length === 2")
    assert ui.evaluate(SHOWN, APPLY) == ["settings", "settings.level"]
    strength = ui.locator(".lg-node-widgets").get_by_text("strength", exact=True)
    if mode == "vue":
        expect(strength).to_have_count(0)
    ui.evaluate(CHOOSE, [APPLY, "settings", "manual"])
    manual = ["settings", "strength", "intervention", "norm", "window_start", "window_end", "branch"]
    assert ui.evaluate(SHOWN, APPLY) == [*manual, "gate", "gate.threshold", "hook_points"]
    ui.evaluate(CHOOSE, [APPLY, "strength", 3])
    saved = saved_workflow(ui)
    ui.evaluate("workflow => app.loadGraphData(workflow, true, true, 'manual')", saved)
    assert ui.evaluate(SHOWN, APPLY) == [*manual, "gate", "gate.threshold", "hook_points"]
    (found,) = widgets(ui, APPLY)
    assert (found["settings"], found["strength"], found["gate"]) == ("manual", 3, "pooled")


def test_a_node_saved_before_there_were_settings_opens_as_manual(ui: Page) -> None:
    """Also one that is pasted: its strength is a number, its gate one with a threshold."""
    build(ui, [APPLY, 0, 0, {"settings": "manual"}])
    workflow = saved_workflow(ui)
    workflow["nodes"][0]["widgets_values"] = [2.5, "add", "none", 0.1, 0.6, "positive", "token", -1.5, "all"]
    ui.evaluate("workflow => app.loadGraphData(workflow, true, true, 'old')", workflow)
    (found,) = widgets(ui, APPLY)
    assert list(found.values()) == ["manual", *workflow["nodes"][0]["widgets_values"]]


def test_the_settings_are_in_the_dialog(ui: Page) -> None:
    for name in ("Nodes.Panels", "Nodes.Warnings", "Compare.Autoplay"):
        assert ui.evaluate("id => app.extensionManager.setting.get(id)", f"SafetySteering.{name}") is True
    ui.evaluate("app.extensionManager.setting.set('SafetySteering.Nodes.Panels', false)")
    build(ui, [LOADER, 0, 0, {}])
    assert ui.evaluate("app.graph.nodes[0].widgets.length") == 1
    ui.evaluate("app.extensionManager.setting.set('SafetySteering.Nodes.Panels', true)")


def test_reloading_the_page_keeps_the_values(mixer: Page) -> None:
    drag(mixer, 2, 0.0)
    wanted = mix_of(mixer)
    assert wanted == ("custom", "violence=1, gore=1, weapons=0")
    mixer.wait_for_timeout(1000)  # the frontend writes its draft
    mixer.reload()
    wait_until_ready(mixer)
    expect(sliders(mixer)).to_have_count(3)
    assert mix_of(mixer) == wanted


def test_nothing_of_ours_is_in_a_saved_workflow_but_the_record(mixer: Page) -> None:
    saved = json.dumps(saved_workflow(mixer))
    assert "safety_steering_panel" not in saved


def test_each_node_is_found_by_search_and_shows_its_widgets(ui: Page, server: ComfyServer, mode: str) -> None:
    kinds = [kind for kind in server.client.object_info() if kind.startswith("SafetySteering_")]
    assert len(kinds) > 6
    build(ui)
    for kind in kinds:
        node_id = add_by_search(ui, server.client.object_info(kind)["display_name"])
        found, shown = ui.evaluate(
            """id => { const node = app.graph.getNodeById(Number(id));
                return [node.type, node.widgets?.filter(w => !w.hidden && !w.options?.hidden && !w.options?.advanced)
                    .map(w => w.name) ?? []]; }""",
            node_id,
        )
        assert found == kind
        declared = server.client.object_info(kind)["input"]
        plain = {
            name
            for part in ("required", "optional")
            for name, (type_, *_) in declared.get(part, {}).items()
            if isinstance(type_, list) or type_ in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
        }
        if kind == APPLY:  # recommended hides what manual reads
            assert shown == ["settings", "settings.level", "safety_steering_panel"]
            continue
        assert plain <= set(shown) | {name for name, spec in flat(declared).items() if spec.get("advanced")}, kind
        if mode == "vue" and shown:
            expect(ui.locator(f"[data-node-id='{node_id}'] [data-testid=node-widget]").first).to_be_visible()


def flat(declared: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Input name -> its options."""
    inputs = {**declared.get("required", {}), **declared.get("optional", {})}
    return {name: (spec[1] if len(spec) > 1 else {}) for name, spec in inputs.items()}
