"""Which rows of a prompt file are taken, and in which split: Load Safety Prompts, and `prompts` on the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .columns import category_name
from .files import load_prompts
from .prompt_set import PromptSet


@dataclass(frozen=True)
class Selection:
    """How a file is read and split.

    columns: `field=column` pairs, as in `parse_columns`. unpaired: "unsafe", "safe", or "" for what the file says.
    categories: those to keep, separated by commas; "" keeps all. limit: the most rows, evenly over the categories; 0
    keeps all. train, validation: shares of the rows that have no split of their own. seed: of the split and the limit.
    """

    columns: str = ""
    unpaired: str = ""
    categories: str = ""
    limit: int = 0
    train: float = 0.6
    validation: float = 0.2
    seed: int = 0


def load_selected(path: str | os.PathLike[str], selection: Selection) -> PromptSet:
    """The selected rows of a prompt file or a dataset's folder, each in a split.

    Raises:
        PromptFileError: the file is missing, damaged, or its columns are not recognised.
        SafetySteeringError: a category is not there, or the shares do not fit.
    """
    prompts = load_prompts(path, columns=selection.columns, unpaired=selection.unpaired)
    if kept := [category_name(name) for name in selection.categories.split(",") if name.strip()]:
        prompts = prompts.of_categories(kept)
    if selection.limit:
        prompts = prompts.limited(selection.limit, selection.seed)
    return prompts.split(selection.train, selection.validation, selection.seed)
