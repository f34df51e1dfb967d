"""What the small world shows: art, scenes, splits."""
