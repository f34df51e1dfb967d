"""Safety Steering for ComfyUI: entry point. What is where: docs in README.md, nodes in nodes/."""

from .nodes import SafetySteeringExtension


async def comfy_entrypoint() -> SafetySteeringExtension:
    return SafetySteeringExtension()
