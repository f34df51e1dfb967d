"""A guarded server: the host's policy, enforced on every job. `guarded_server` starts it; nothing else here is needed
in an artist's ComfyUI, and nothing is imported there but `guarded_mode`.
"""
