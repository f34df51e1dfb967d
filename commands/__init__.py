"""The command line: python -m safety_steering."""
