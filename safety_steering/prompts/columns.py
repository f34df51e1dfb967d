"""Which column of a prompt file is which field: the user's choice first, then public formats, then guesses by name.

The fields of a row are `id`, `category`, `split`, the three sides `unsafe`, `safe` and `negative`, and, for files with
one column of prompts, `prompt` and the `label` that says which side it is on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PromptFileError

NO_COLUMN = "-"
GUESSES = {
    "id": ("id", "pair_id", "prompt_id", "uid"),
    "category": ("category", "categories", "class", "topic", "concept"),
    "split": ("split", "subset"),
    "unsafe": ("unsafe", "unsafe_prompt", "harmful", "harmful_prompt", "toxic", "nsfw_prompt"),
    "safe": ("safe", "safe_prompt", "benign", "benign_prompt", "harmless_prompt"),
    "negative": ("negative", "negative_safe", "negative_twin"),
    "prompt": ("prompt", "text", "caption", "prompt_text", "sentence"),
    "label": (
        "label",
        "safety",
        "prompt_type",
        "is_unsafe",
        "is_harmful",
        "is_toxic",
        "is_nsfw",
        "is_safe",
        "is_benign",
    ),
}
LABELS = {
    "unsafe": ("unsafe", "harmful", "toxic", "nsfw", "safety_critical"),
    "safe": ("safe", "benign", "harmless", "sfw", "safety_neutral"),
}
# flags of a column whose own name says what holds, such as is_unsafe
HOLDS, HOLDS_NOT = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")
TELLING = re.compile(r"(?<![a-z])(un)?safe(ty)?(?![a-z])|harm|toxic|nsfw|sfw|benign|label", re.IGNORECASE)
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
# Public sets' names of the six categories of this pack. Every other name is kept.
SAME_CATEGORY = {
    "hate": ("racism", "discrimination", "other_discrimination", "hate_speech"),
    "sexual": ("porn", "pornography", "borderline_pornography", "nudity", "sex"),
    "violence": ("violent", "gore", "animal_abuse"),
    "humiliation": ("harassment", "bullying"),
    "illegal": ("illegal_activity", "illegal_activities", "crime", "contraband", "drugs"),
    "disturbing": ("disturbing_content", "shocking", "self_harm", "horror"),
}
_CATEGORY = {name: category for category, names in SAME_CATEGORY.items() for name in (category, *names)}
# The fourteen files of T2VSafetyBench are named by number.
T2V_SAFETY_BENCH = (
    "pornography", "borderline_pornography", "violence", "gore", "disturbing_content", "public_figures",
    "discrimination", "political", "copyright", "illegal_activities", "misinformation", "sequential_action",
    "dynamic_variation", "coherent_contextual",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """How to read a file. columns: field -> the file's own column name. side: of prompts without a label, or "".

    category: of rows that name none. one_per: a column; only the first row of each of its values is kept.
    """

    columns: Mapping[str, str]
    side: str = ""
    category: str = ""
    source_format: str = ""
    one_per: str = ""


@dataclass(frozen=True)
class PublicFormat:
    """A published set's columns: those that identify it, and the field of each."""

    name: str
    told_by: frozenset[str]
    columns: Mapping[str, str]
    one_per: str = ""


FORMATS = (
    PublicFormat(
        "SafeSteerDataset",
        frozenset({"safe_prompt", "unsafe_prompt"}),
        {"unsafe": "unsafe_prompt", "safe": "safe_prompt", "category": "category"},
    ),
    PublicFormat(
        "SafeSora",
        frozenset({"prompt_id", "prompt_text", "prompt_type"}),
        {"id": "prompt_id", "prompt": "prompt_text", "label": "prompt_type", "category": "prompt_labels"},
    ),
    PublicFormat(
        "I2P",
        frozenset({"prompt", "categories", "inappropriate_percentage"}),
        {"unsafe": "prompt", "category": "categories"},
    ),
    PublicFormat("Ring-A-Bell", frozenset({"prompt", "prompt1"}), {"unsafe": "prompt", "safe": "prompt1"}),
    # Five captions describe one picture: with all of them, a picture would be in several splits.
    PublicFormat(
        "COCO captions", frozenset({"image_id", "caption"}), {"id": "image_id", "safe": "caption"}, one_per="image_id"
    ),
)


def parse_columns(text: str) -> dict[str, str]:
    """Parse `unsafe=bad_text, safe=good_text` into field -> column name; `id=-` means no column.

    Raises:
        PromptFileError: a part is not `field=column`, or the field is unknown or stands twice.
    """
    columns: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        field, equals, column = (side.strip() for side in part.partition("="))
        if field not in GUESSES or not equals or not column or field in columns:
            raise PromptFileError(
                f"The columns have a part '{part[:80]}'. Write each field once, as field=column, with the fields "
                f"{', '.join(GUESSES)}; for example: unsafe=bad_text, safe=good_text"
            )
        columns[field] = column
    return columns


def choose_reading(path: Path, found: Sequence[str], chosen: Mapping[str, str], unpaired: str = "") -> Reading:
    """How to read a file that has the columns `found`. chosen: the user's columns. unpaired: "unsafe", "safe" or "".

    Raises:
        PromptFileError: a chosen column is not there, no column of prompts is recognised, or a column that may hold
            labels would not be read.
    """
    own_names = {name.strip().casefold(): name for name in found}
    counts = Counter(name.strip().casefold() for name in found)
    wanted = {field: name.casefold() for field, name in chosen.items() if name != NO_COLUMN}
    missing = [chosen[field] for field, name in wanted.items() if name not in own_names]
    if missing:
        raise PromptFileError(
            f"There is no column '{missing[0][:80]}'. The columns found: {_listing(found)}. Correct the columns, or "
            "leave them empty to have them guessed."
        )
    public = next((known for known in FORMATS if known.told_by <= own_names.keys()), None)
    guessed = _guess(own_names) | dict(public.columns if public else {})
    columns = {
        field: name
        for field, name in guessed.items()
        if name in own_names and field not in chosen and name not in wanted.values()
    } | wanted
    if "prompt" in wanted:
        columns = {field: name for field, name in columns.items() if field in wanted or field not in ("unsafe", "safe")}
    elif {"unsafe", "safe"} & columns.keys():
        columns = {field: name for field, name in columns.items() if field not in ("prompt", "label")}
    elif "prompt" not in columns:
        raise PromptFileError(
            f"No column of prompts was recognised. The columns found: {_listing(found)}. Say which is which, for "
            "example: unsafe=column_a, safe=column_b"
        )
    twice = next((name for name in columns.values() if counts[name] > 1), "")
    if twice:
        raise PromptFileError(f"It has {counts[twice]} columns named '{twice[:80]}'. Rename or remove all but one.")
    _refuse_unread_labels(found, columns, chosen, unpaired)
    bench = _bench_class(path)
    if "prompt" in columns and "label" not in columns and not unpaired and not bench:
        raise PromptFileError(
            "It has one prompt a row, and nothing says whether they are safe or unsafe. Set unpaired to unsafe or safe."
        )
    return Reading(
        columns={field: own_names[name] for field, name in columns.items()},
        side=unpaired or ("unsafe" if bench else ""),
        category=category_name(bench) or _category_of_file(path),
        source_format="T2VSafetyBench" if bench else public.name if public else "",
        one_per=own_names[public.one_per] if public and public.one_per else "",
    )


def category_name(text: str) -> str:
    """A category's name in this pack: lower case, one word; a synonym becomes the pack's own name."""
    name = re.sub(r"\W+", "_", text.casefold()).strip("_")[:60]
    return _CATEGORY.get(name, name)


def _refuse_unread_labels(
    found: Sequence[str], columns: Mapping[str, str], chosen: Mapping[str, str], unpaired: str
) -> None:
    """Raise PromptFileError if all prompts would be taken for one side while a column may say which is on which."""
    if not unpaired or "prompt" not in columns or "label" in {*columns, *chosen}:
        return
    read = {name.casefold() for name in columns.values()}
    telling = next((name for name in found if TELLING.search(name) and name.strip().casefold() not in read), "")
    if telling:
        raise PromptFileError(
            f"The column '{telling[:80]}' may say which prompts are unsafe, and is not read. Map it "
            f"(label={telling[:80]}), or set label=- to take every prompt for {unpaired}."
        )


def side_of_label(label: str, column: str = "") -> str:
    """ "unsafe" or "safe". column: where the label stands; flags need a name that says what holds, such as is_unsafe.

    Raises:
        PromptFileError: the label is not one of the known words; a number could mean either.
    """
    word = label.strip().casefold()
    words = re.split(r"[^a-z]+", column.casefold())
    flagged = next((side for side, names in LABELS.items() if set(names) & set(words)), "")
    for side, names in LABELS.items():
        if word in names or (flagged and word in (HOLDS if side == flagged else HOLDS_NOT)):
            return side
    raise PromptFileError(
        f"The label '{label[:80]}' says neither safe nor unsafe. Known labels: "
        f"{', '.join(LABELS['unsafe'] + LABELS['safe'])}; or true and false in a column such as is_unsafe. Or map it "
        "to no column (label=-) and set unpaired."
    )


def split_of(name: str) -> str:
    """The split that a word means: train, validation or test; "" if it means none."""
    return SPLIT_NAMES.get(name.strip().casefold(), "")


def _guess(own_names: Mapping[str, str]) -> dict[str, str]:
    """Field -> column, by its name, or else by the last part of a nested one (`meta.category`) if it is unique."""
    last: dict[str, list[str]] = {}
    for own in own_names:
        last.setdefault(own.rpartition(".")[2], []).append(own)
    guesses = {
        field: [name for name in names if name in own_names]
        or [last[name][0] for name in names if len(last.get(name, ())) == 1]
        for field, names in GUESSES.items()
    }
    return {field: names[0] for field, names in guesses.items() if names}


def _bench_class(path: Path) -> str:
    inside = any("t2vsafetybench" in part.casefold() for part in path.parts[:-1])
    number = int(path.stem) if inside and re.fullmatch(r"[0-9]{1,2}", path.stem) else 0
    return T2V_SAFETY_BENCH[number - 1] if 1 <= number <= len(T2V_SAFETY_BENCH) else ""


def _category_of_file(path: Path) -> str:
    """The category in a file's name, such as `Violence_30.csv`, or ""."""
    words = re.split(r"[\W_\d]+", path.stem.casefold())
    return next((_CATEGORY[word] for word in words if word in _CATEGORY), "")


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"
