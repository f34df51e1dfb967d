"""The types of this pack's links."""

from comfy_api.latest import io

SafetyVectorType = io.Custom("SAFETY_VECTOR")
SafetyActivationsType = io.Custom("SAFETY_ACTIVATIONS")
SafetyPromptsType = io.Custom("SAFETY_PROMPTS")

CATEGORY = "safety steering"
