"""Which of a judge's classes a prompt names.

Names are looked for longest first, and what one has taken no other takes: in "pink flowers on blue" the pink belongs to
the flowers. A prompt that names two classes of one group, or none, names none: then the judge cannot tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def named_classes(prompt: str, groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Group -> the one class of it that the prompt names; groups of which it names none or several are left out."""
    text = prompt.casefold()
    found: dict[str, set[str]] = {group: set() for group in groups}
    owners = [(name, group) for group, names in groups.items() for name in names]
    for name, group in sorted(owners, key=lambda owner: -len(owner[0])):
        pattern = rf"(?<!\w){re.escape(name.casefold())}(?!\w)"
        if re.search(pattern, text):
            found[group].add(name)
            text = re.sub(pattern, "\0", text)
    return {group: next(iter(names)) for group, names in found.items() if len(names) == 1}
