"""Judges that use ComfyUI's own objects: its CLIPs, and the nodes of other packs."""
