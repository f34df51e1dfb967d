"""What a direction does to hidden states, and the trace of it."""
