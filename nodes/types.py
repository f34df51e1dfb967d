"""The socket types of this pack, and its search words."""

from comfy_api.latest import io

SafetyVectorType = io.Custom("SAFETY_VECTOR")
SafetyActivationsType = io.Custom("SAFETY_ACTIVATIONS")
SafetyPromptsType = io.Custom("SAFETY_PROMPTS")
SafetyJudgeType = io.Custom("SAFETY_JUDGE")
SafetyLlmType = io.Custom("SAFETY_LLM")
SafetyAlignmentType = io.Custom("SAFETY_ALIGNMENT")

CATEGORY = "safety steering"
# What people type who look for a pack like this; on the nodes to start with.
SEARCH_WORDS = ("safety", "steering", "nsfw", "guardrail", "censor", "safe", "block unsafe", "moderation", "filter")
