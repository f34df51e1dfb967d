"""Language models inside ComfyUI."""
