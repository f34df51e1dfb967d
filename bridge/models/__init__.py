"""ComfyUI's models: where hidden states are in each family."""
