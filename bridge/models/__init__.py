"""ComfyUI's models: the hook points, spaces and token layouts of each family."""
