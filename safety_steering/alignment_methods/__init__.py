"""The ways to fit a map between two spaces, one a file. Rows are anchors, channels are centred and standardised."""

METHODS = ("ridge", "orthogonal", "mlp", "reduced_rank")

__all__ = ["METHODS"]
