"""Safety Steering for ComfyUI: entry point. What is where: docs in README.md, nodes in nodes/."""

from .bridge.guarded_mode import guarded_or_not_at_all

with guarded_or_not_at_all():
    from .nodes import SafetySteeringExtension

WEB_DIRECTORY = "./js"


async def comfy_entrypoint() -> SafetySteeringExtension:
    return SafetySteeringExtension()
