"""From activations or prompt pairs to a direction."""
