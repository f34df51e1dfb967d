"""The guardrail of a hosted ComfyUI: the operator's policy, the audit log, and signed evidence.

Nothing here imports ComfyUI; `bridge.enforcement` applies the policy to jobs.
"""
