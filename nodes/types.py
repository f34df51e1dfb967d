"""The types of this pack's links, and the words by which its nodes are found."""

from comfy_api.latest import io

SafetyVectorType = io.Custom("SAFETY_VECTOR")
SafetyActivationsType = io.Custom("SAFETY_ACTIVATIONS")
SafetyPromptsType = io.Custom("SAFETY_PROMPTS")
SafetyJudgeType = io.Custom("SAFETY_JUDGE")
SafetyLlmType = io.Custom("SAFETY_LLM")
SafetyAlignmentType = io.Custom("SAFETY_ALIGNMENT")

CATEGORY = "safety steering"
# What people type who look for this pack, on the nodes that they are to find first.
SEARCH_WORDS = ("safety", "steering", "nsfw", "guardrail", "censor", "safe", "block unsafe", "moderation", "filter")
