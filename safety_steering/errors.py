"""What can go wrong, each with a sentence that says what was expected, what came and what to do."""


class SafetySteeringError(ValueError):
    """Base of every error this package raises on purpose."""


class VectorFileError(SafetySteeringError):
    """A file is not a usable safety vector: wrong format, damaged, missing or non-finite content."""


class PromptFileError(SafetySteeringError):
    """A file is not a usable prompt set: missing, unreadable, too large, or its columns are not known."""


class ResultsError(SafetySteeringError):
    """A file holds no results, or a table of them cannot be made or written."""


class MismatchError(SafetySteeringError):
    """A vector does not belong to this model, hook point or category."""


class NotSteeredError(SafetySteeringError):
    """Steering was asked for and did not act. Raised so that an unsteered result is never delivered as safe."""


def shortened(text: str, most: int = 80) -> str:
    """Something that came from outside, to be quoted in an error: printable, and of bounded length."""
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
