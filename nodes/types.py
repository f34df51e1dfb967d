"""The types of this pack's links."""

from comfy_api.latest import io

SafetyVectorType = io.Custom("SAFETY_VECTOR")
SafetyActivationsType = io.Custom("SAFETY_ACTIVATIONS")
SafetyPromptsType = io.Custom("SAFETY_PROMPTS")
SafetyJudgeType = io.Custom("SAFETY_JUDGE")
SafetyLlmType = io.Custom("SAFETY_LLM")
SafetyAlignmentType = io.Custom("SAFETY_ALIGNMENT")

CATEGORY = "safety steering"
