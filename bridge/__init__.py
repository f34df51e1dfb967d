"""The only rooms that touch ComfyUI's objects: model map, token layout, injection, traces."""
