"""`python -m safety_steering extract`: a portable vector from a language model and paired prompts."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..safety_steering.directions.pairs import VALENCE
from ..safety_steering.directions.portable import (
    BUNDLED_ANCHORS,
    Extracted,
    ExtractSettings,
    anchor_texts,
    extract_vector,
)
from ..safety_steering.files import write_atomically
from ..safety_steering.language_models.source_model import POOLINGS
from ..safety_steering.language_models.transformers_model import DTYPES, LanguageModel
from ..safety_steering.prompts.files import load_prompts
from ..safety_steering.vectors.card import describe
from ..safety_steering.vectors.file import save_vector
from ..safety_steering.vectors.vector import DIFFERING, POOLED
from .progress import progress_bar

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

BUNDLED = Path(__file__).resolve().parent.parent / "vectors" / "prompts"


def add_extract_command(commands: Commands) -> None:
    """Add `extract` to the command line."""
    parser = commands.add_parser(
        "extract",
        help="make a portable safety vector from a language model and paired prompts",
        description="Learns in a language model which way is safe, from pairs of an unsafe prompt and its safe twin.",
    )
    parser.add_argument("model", type=Path, help="a Hugging Face folder, or a .gguf file; nothing is downloaded")
    parser.add_argument("output", type=Path, help="the vector to write, *.safetensors; chart and table go beside it")
    parser.add_argument(
        "--prompts", type=Path, default=BUNDLED / "safety_pairs.csv", help="pairs; default: the bundled ones"
    )
    parser.add_argument(
        "--anchors", type=Path, default=BUNDLED / BUNDLED_ANCHORS, help="benign prompts; default: the bundled ones"
    )
    parser.add_argument("--columns", default="", help="which column of the prompts is what: unsafe=bad, safe=good")
    parser.add_argument("--categories", default="", help="which to extract, separated by commas; default: all")
    parser.add_argument("--layer", default="sweep", help="sweep, all, numbers such as 12,20 or a depth such as 0.9")
    parser.add_argument("--pooling", choices=POOLINGS, default=POOLINGS[0], help="how a prompt becomes one state")
    parser.add_argument("--tokens", choices=(DIFFERING, POOLED), default=DIFFERING, help="what directions are made of")
    parser.add_argument("--valence", choices=VALENCE, default=VALENCE[0], help="what is done about gloom")
    parser.add_argument("--train", type=float, default=0.6, help="share of pairs to fit on, if the file has no splits")
    parser.add_argument("--validation", type=float, default=0.2, help="share of pairs that choose the layer")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--licence", default="", help="of the vector; written into its card")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32", help="what the model runs in")
    parser.add_argument("--batch", type=int, default=16, help="prompts at once")
    parser.set_defaults(run=_extract)


def _extract(options: argparse.Namespace) -> str:
    prompts = load_prompts(options.prompts, columns=options.columns)
    prompts = prompts.split(options.train, options.validation, options.seed)
    anchors = anchor_texts(load_prompts(options.anchors, unpaired="safe"))
    model = LanguageModel(options.model, device=options.device, dtype=options.dtype, batch=options.batch)
    settings = ExtractSettings(options.layer, options.pooling, options.valence, options.licence, options.tokens)
    names = [name.strip() for name in options.categories.split(",") if name.strip()]
    with progress_bar("texts") as show:
        extracted = extract_vector(model, prompts, anchors, settings, categories=names, progress=show)
    written = write_extracted(extracted, options.output, "extract", options.seed)
    read = [f"{prompts.name}: {note}" for note in prompts.notes]
    return "\n".join([*read, describe(extracted.vector), *(f"wrote {path}" for path in written)])


def write_extracted(extracted: Extracted, output: Path, command: str, seed: int = 0) -> list[Path]:
    """Write the vector, its sweep's chart (.png) and table (.json) beside one another; returns the paths."""
    save_vector(extracted.vector, output)
    table = {"command": command, "seeds": [seed], "rows": extracted.table}
    text = json.dumps(table, indent=1) + "\n"
    return [
        output,
        write_atomically(output.with_suffix(".json"), text.encode()),
        write_atomically(output.with_suffix(".png"), _png(extracted)),
    ]


def _png(extracted: Extracted) -> bytes:
    from PIL import Image

    from ..safety_steering.directions.charts import draw_sweep

    picture = Image.fromarray(np.asarray(draw_sweep(extracted)))
    buffer = io.BytesIO()
    # 64 colours are plenty for lines, and a quarter of the size
    picture.quantize(64).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
