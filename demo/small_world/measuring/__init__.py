"""What a setting does to its videos."""
