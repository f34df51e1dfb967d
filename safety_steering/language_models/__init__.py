"""Language models as a source of directions."""
