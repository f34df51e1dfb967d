"""A prompt set: pairs of an unsafe prompt and its safe twin, their splits and their lengths.

A row is a pair, or one prompt alone where a set is not paired. It carries its split, so that an unsafe prompt, its safe
twin and its negative twin always lie on the same side. The split is drawn per row from its id,

    u(id) = sha256(seed, id) / 2^256;   train if u < train share, validation if u < train + validation share, else test

so that it stays as it is when other rows are added, removed or reordered.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from ..errors import SafetySteeringError

SIDES = ("unsafe", "safe", "negative")
SPLITS = ("train", "validation", "test")
BENIGN, UNSAFE = "benign", "unsafe"  # categories of rows that name none
MAX_SHOWN = 20


@dataclass(frozen=True)
class PromptRow:
    """One pair. safe: the same scene without the unsafe element. negative: a sad, dirty or dark scene that is safe.

    category: one name, or several joined by ", ". A missing prompt is "".
    """

    id: str
    category: str
    unsafe: str = ""
    safe: str = ""
    negative: str = ""
    split: str = ""

    @property
    def categories(self) -> tuple[str, ...]:
        """The names in `category`."""
        return tuple(self.category.split(", "))

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts that are there, by side."""
        return {side: text for side in SIDES if (text := getattr(self, side))}


@dataclass(frozen=True)
class Length:
    """Mean length of a category's prompts of one side, in words and in characters."""

    category: str
    side: str
    count: int
    words: float
    characters: float


@dataclass(frozen=True)
class PromptSet:
    """A prompt set, checked.

    name: the file's. source_format: the public format that it was read as, or "". notes: how the file was read.

    Raises:
        SafetySteeringError: it is empty, an id occurs twice, a row has no prompt, or a split is not one of the three.
    """

    rows: tuple[PromptRow, ...]
    name: str = ""
    source_format: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.rows:
            raise SafetySteeringError(f"{self._named} holds no prompts. Choose a file, or categories, with some.")
        twice = [id for id, count in Counter(row.id for row in self.rows).items() if count > 1]
        if twice:
            raise SafetySteeringError(
                f"{self._named} gives {len(twice)} ids to rows that differ, the first is '{twice[0][:80]}'. Give each "
                "row an id of its own, or map the id to no column: id=-"
            )
        for row in self.rows:
            if not row.prompts:
                raise SafetySteeringError(f"The row '{row.id[:80]}' has no prompt. Leave it out.")
            if row.split not in ("", *SPLITS):
                raise SafetySteeringError(
                    f"The row '{row.id[:80]}' is in the split '{row.split[:80]}', and not in one of "
                    f"{', '.join(SPLITS)}. Rename it, or map the split to no column: split=-"
                )

    @property
    def categories(self) -> tuple[str, ...]:
        """Every category, in the order in which they appear."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.categories))

    @property
    def paired(self) -> bool:
        """Whether every row has an unsafe prompt and its safe twin."""
        return all(row.unsafe and row.safe for row in self.rows)

    @property
    def sha256(self) -> str:
        """The sha256 of ids, categories and prompts. The order of rows and their splits do not enter."""
        content = [[row.id, row.category, row.unsafe, row.safe, row.negative] for row in self.rows]
        return hashlib.sha256(json.dumps(sorted(content)).encode()).hexdigest()

    def in_split(self, split: str) -> PromptSet:
        """The rows of one split."""
        return self._of(row for row in self.rows if row.split == split)

    def of_categories(self, names: Sequence[str]) -> PromptSet:
        """The rows that have one of these categories.

        Raises:
            SafetySteeringError: the set lacks one of them.
        """
        unknown = [name for name in names if name not in self.categories]
        if unknown:
            raise SafetySteeringError(
                f"{self._named} has no category '{unknown[0][:80]}'. Its categories: {_listing(self.categories)}."
            )
        return self._of(row for row in self.rows if set(row.categories) & set(names))

    def limited(self, count: int, seed: int = 0) -> PromptSet:
        """At most `count` rows, as many of each `category` as there are, drawn by `seed`, in the set's order."""
        taken: Counter[str] = Counter()
        turn: dict[str, int] = {}
        for row in sorted(self.rows, key=lambda row: _uniform("limit", seed, row.id)):
            turn[row.id] = taken[row.category]
            taken[row.category] += 1
        kept = sorted(self.rows, key=lambda row: turn[row.id])[:count]
        ids = {row.id for row in kept}
        return self._of(row for row in self.rows if row.id in ids)

    def split(self, train: float = 0.6, validation: float = 0.2, seed: int = 0) -> PromptSet:
        """The rows, each in a split: its own, or for rows without one a drawn split.

        train, validation: shares of the drawn rows; what they leave is test.

        Raises:
            SafetySteeringError: the shares are no numbers from 0 to 1, or more than 1 together.
        """
        if not all(math.isfinite(share) and share >= 0 for share in (train, validation)) or train + validation > 1:
            raise SafetySteeringError(
                f"The shares train {train:g} and validation {validation:g} must be 0 or more and at most 1 together; "
                "what they leave is the test split."
            )

        def drawn(row: PromptRow) -> PromptRow:
            if row.split:
                return row
            u = _uniform("split", seed, row.id)
            return replace(row, split=SPLITS[(u >= train) + (u >= train + validation)])

        own = sum(bool(row.split) for row in self.rows)
        some = f"{own} of {len(self.rows)} rows have a split of their own; the others are drawn"
        return replace(
            self,
            rows=tuple(map(drawn, self.rows)),
            notes=self.notes + ((some,) if 0 < own < len(self.rows) else ()),
        )

    def lengths(self) -> tuple[Length, ...]:
        """Mean lengths by category and side, where there is a prompt. A row of several categories counts in each."""
        return tuple(
            Length(category, side, len(texts), fmean(len(t.split()) for t in texts), fmean(map(len, texts)))
            for category in self.categories
            for side in SIDES
            if (texts := [text for row in self.rows if category in row.categories if (text := row.prompts.get(side))])
        )

    def shared_between_splits(self) -> int:
        """How many prompts occur, letter case aside, in rows of different splits: 0 in a clean set."""
        seen: dict[str, set[str]] = {}
        for row in self.rows:
            for text in row.prompts.values():
                seen.setdefault(text.casefold(), set()).add(row.split)
        return sum(len(splits) > 1 for splits in seen.values())

    @property
    def _named(self) -> str:
        return self.name or "The prompt set"

    def _of(self, rows: Iterable[PromptRow]) -> PromptSet:
        return replace(self, rows=tuple(rows))


def describe_prompts(prompts: PromptSet, examples: int = 2) -> str:
    """A preview as text: counts per category and split, lengths, and the first rows of each category.

    In lines, not in columns: a node draws text in a proportional font and without runs of spaces.
    """
    return "\n".join(_preview(prompts, examples))


def _preview(prompts: PromptSet, examples: int) -> Iterator[str]:
    kind = "pairs" if prompts.paired else "prompts, not all paired"
    read_as = f", read as {prompts.source_format}" if prompts.source_format else ""
    yield f"{prompts.name}: {len(prompts.rows)} {kind}{read_as}, sha256 {prompts.sha256[:12]}"
    shown = prompts.categories[:MAX_SHOWN]
    for category in shown:
        yield f"{category}: " + ", ".join(f"{_count(prompts, category, split)} {split}" for split in SPLITS)
    if len(prompts.categories) > len(shown):
        yield f"and {len(prompts.categories) - len(shown)} more"
    shared = prompts.shared_between_splits()
    if shared:
        yield f"warning: {shared} prompts occur in more than one split, so what is measured on them is not held out"
    if prompts.notes:
        yield ""
        yield "how it was read"
        yield from prompts.notes
    yield ""
    yield "mean length in words (characters)"
    means = prompts.lengths()
    for category in shown:
        of_sides = [mean for mean in means if mean.category == category]
        yield f"{category}: " + ", ".join(f"{m.side} {m.words:.1f} ({m.characters:.0f})" for m in of_sides)
    for category in shown:
        yield ""
        for row in [row for row in prompts.rows if category in row.categories][:examples]:
            yield f"{category}, {row.split}"
            yield from (f"  {side}: {text}" for side, text in row.prompts.items())


def _count(prompts: PromptSet, category: str, split: str) -> int:
    return sum(row.split == split and category in row.categories for row in prompts.rows)


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_SHOWN]) + (f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else "")


def _uniform(purpose: str, seed: int, id: str) -> float:
    """A number from 0 to 1 that depends on nothing but its arguments."""
    digest = hashlib.sha256(json.dumps([purpose, seed, id]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
