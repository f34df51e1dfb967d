"""The commands and the Python in the documents, as the tests run them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4,}\S.*\n?)+", re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
ASSIGNED = re.compile(r"[A-Z_]+=\S*")
PROGRAMS = ("cd", "comfy", "curl", "git", "make", "pip", "python", "python3")


@dataclass(frozen=True)
class Snippet:
    """A command, as its words without assigned variables; or the text of a Python block, as the one word."""

    document: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {' '.join(self.words)[:80]}"


def documents() -> list[str]:
    """Every Markdown file of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPO_ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return [name for name in listed if (REPO_ROOT / name).exists()]


def python_blocks() -> list[Snippet]:
    """Every fenced block of Python."""
    found = [(name, FENCED.findall(text_of(name))) for name in documents()]
    return [Snippet(name, (code,)) for name, blocks in found for _, language, code in blocks if language == "python"]


def commands() -> list[Snippet]:
    """Every command, in a block or between back-ticks, once a document. The changelog tells of what was: not its."""
    names = [name for name in documents() if name != "CHANGELOG.md"]
    found = [Snippet(name, words) for name in names for words in commands_in(text_of(name))]
    return list(dict.fromkeys(found))


def text_of(name: str) -> str:
    return (REPO_ROOT / name).read_text(encoding="utf-8")


def commands_in(text: str) -> Iterator[tuple[str, ...]]:
    """Commands of a document. A block that is called bash holds nothing else.

    Raises:
        ValueError: such a block has a line that is no command.
    """
    for _, language, block in FENCED.findall(text):
        if language in ("", "bash"):
            yield from _lines(block, strict=bool(language))
    plain = FENCED.sub("", text)
    for block in INDENTED.findall(plain):
        yield from _lines(block, strict=False)
    for code in INLINE.findall(INDENTED.sub("", plain)):
        yield from _lines(" ".join(code.split()), strict=False)


def _lines(block: str, *, strict: bool) -> Iterator[tuple[str, ...]]:
    for line in re.sub(r"\\\n\s*", " ", block).splitlines():
        try:
            words = shlex.split(line.replace("\\", "/"), comments=True)
        except ValueError:  # a formula or a sentence
            words = []
        while words and ASSIGNED.fullmatch(words[0]):
            del words[0]
        if len(words) > 1 and Path(words[0]).name.removesuffix(".exe") in PROGRAMS:
            yield (Path(words[0]).name.removesuffix(".exe"), *words[1:])
        elif strict and line.strip() and not line.lstrip().startswith("#"):
            raise ValueError(f"'{line.strip()}' is no command that the tests know.")
