"""The guardrail: what the operator of a hosted ComfyUI decides, what is recorded, and what is signed.

Nothing here imports ComfyUI; `bridge` enforces what `policy` says.
"""
