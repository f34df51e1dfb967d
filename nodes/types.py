"""The types of this pack's links."""

from comfy_api.latest import io

SafetyVectorType = io.Custom("SAFETY_VECTOR")

CATEGORY = "safety steering"
