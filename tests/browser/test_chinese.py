"""The pack in ComfyUI's Chinese interface: labels, panels and help pages."""

from __future__ import annotations

from pathlib import Path

from comfy_server import ComfyServer
from frontend import PATIENCE, wait_until_ready
from panels import LOADER, MIXER, build, panel
from playwright.sync_api import Browser, expect


def test_nodes_panels_and_help_are_chinese(browser: Browser, server: ComfyServer, artifacts: Path) -> None:
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, locale="zh-CN")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(server.address)
    wait_until_ready(page)
    page.evaluate("app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    assert page.evaluate("app.extensionManager.setting.get('Comfy.Locale')") == "zh"
    (choices,) = (spec[1]["options"] for spec in server.client.object_info()[LOADER]["input"]["required"].values())
    bundled = next(label for label in choices if "smollm2_135m_portable" in label)
    _, mixer = build(page, [LOADER, 0, 0, {"vector": bundled}, {}], [MIXER, 480, 0, {}, {"safety_vector": [0, 0]}])
    expect(panel(page, "安全向量").get_by_text("适用于", exact=True)).to_be_visible()
    expect(panel(page, "类别权重").get_by_text("导向了", exact=False)).to_be_visible()
    drawn = page.locator(f"[data-node-id='{mixer}']")
    expect(drawn.get_by_text("预设", exact=True)).to_be_visible()
    drawn.get_by_text("类别混合器", exact=True).click()
    page.get_by_test_id("info-button").click()
    shown = page.locator(".node-help-content")
    for heading in ("何时使用", "输入", "输出", "常见错误"):
        expect(shown.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    page.wait_for_function("() => document.querySelector('.node-help-content img')?.naturalWidth > 0")
    page.screenshot(path=artifacts / "chinese.png")
    context.close()
