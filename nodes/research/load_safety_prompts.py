"""Load Safety Prompts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...bridge.folders import PROMPTS, find, names, sha256_of
from ...safety_steering.prompts.files import data_files
from ...safety_steering.prompts.prompt_set import describe_prompts
from ...safety_steering.prompts.selection import Selection, load_selected
from ..inputs import is_valid
from ..types import CATEGORY, SafetyPromptsType

SAID_BY_FILE = "as the file says"
BUNDLED_PAIRS = "safety_pairs.csv"


class LoadSafetyPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SafetySteering_LoadSafetyPrompts",
            display_name="Load Safety Prompts",
            category=CATEGORY,
            description="Loads prompts to measure safety with: pairs of an unsafe prompt and its safe twin, or benign "
            "prompts. Put files into models/safety_prompts.",
            search_aliases=[
                "safety",
                "steering",
                "prompt set",
                "dataset",
                "unsafe prompts",
                "benign prompts",
                "csv",
                "parquet",
            ],
            inputs=[
                io.Combo.Input(
                    "prompts",
                    options=names(PROMPTS),
                    default=BUNDLED_PAIRS,
                    tooltip="The file to load: parquet, csv, tsv, jsonl, json, or txt with one prompt per line, "
                    "also as .gz, or a dataset's folder.",
                ),
                io.String.Input(
                    "columns",
                    default="",
                    tooltip="Which column holds which field, such as unsafe=bad_text, safe=good_text. The fields: id, "
                    "category, unsafe, safe, negative, split, prompt, label. id=- means no such column. Empty: by "
                    "name.",
                ),
                io.Combo.Input(
                    "unpaired",
                    options=[SAID_BY_FILE, "unsafe", "safe"],
                    default=SAID_BY_FILE,
                    tooltip="The label of the prompts in a file with one prompt per row and no label column.",
                ),
                io.String.Input(
                    "categories",
                    default="",
                    tooltip="Categories to keep, separated by commas: violence, sexual. Empty: all of them.",
                ),
                io.Float.Input(
                    "train",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the pairs on which directions are fitted. Rows with a split keep it.",
                ),
                io.Float.Input(
                    "validation",
                    default=0.2,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the pairs on which settings are chosen. The rest is the test split, which is "
                    "used once, at the end.",
                ),
                io.Int.Input(
                    "split_seed",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    control_after_generate=False,
                    tooltip="Seed of the split. The same seed gives the same split, also after rows were added to the "
                    "file.",
                ),
                io.Int.Input(
                    "limit",
                    default=0,
                    min=0,
                    max=200_000,
                    tooltip="The most pairs, evenly over the categories. 0: all of them.",
                ),
            ],
            outputs=[
                SafetyPromptsType.Output("safety_prompts", tooltip="The prompts with their categories and splits."),
                io.String.Output(
                    "preview",
                    tooltip="How the file was read, counts per category and split, lengths, and the first rows.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, prompts: str) -> bool | str:
        return is_valid(lambda: find(PROMPTS, prompts))

    @classmethod
    def fingerprint_inputs(cls, prompts: str, **settings: Any) -> list[str]:
        return [sha256_of(path) for path in data_files(find(PROMPTS, prompts))]

    @classmethod
    def execute(
        cls,
        prompts: str,
        columns: str,
        unpaired: str,
        categories: str,
        train: float,
        validation: float,
        split_seed: int,
        limit: int,
    ) -> io.NodeOutput:
        selection = Selection(
            columns=columns,
            unpaired="" if unpaired == SAID_BY_FILE else unpaired,
            categories=categories,
            limit=limit,
            train=train,
            validation=validation,
            seed=split_seed,
        )
        loaded = load_selected(find(PROMPTS, prompts), selection)
        preview = describe_prompts(loaded)
        return io.NodeOutput(loaded, preview, ui=ui.PreviewText(preview))
