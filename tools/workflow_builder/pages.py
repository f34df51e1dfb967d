"""From a recipe to a workflow's page: ComfyUI's template with the safety nodes in it, laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from workflow_builder.chain import VectorFile, add_chain, add_safe_models, compare
from workflow_builder.graph import FlatGraph, flatten, load_template
from workflow_builder.notes import COMPARE_NOTE, FIVE_NOTE, NOTE
from workflow_builder.page import GREEN, WIDTH, Group, Note, Page
from workflow_builder.recipes import COMPARE, MODELS, PROMPT, SAMPLE, VAE, Folded, Frame, Recipe, Spread
from workflow_builder.screen import Screen
from workflow_builder.subgraph import fold

EXAMPLE_IMAGE = "example.png"  # lies in ComfyUI's input folder from the start
TITLE = "What to change first"
SAFETY_WIDTH, RESULT_WIDTH = 430, 480
WIDTHS = {PROMPT: 440, COMPARE: 480}
# of the columns of one screen: loaders, Safe Models, prompts, sampler and result
ONE_STAGE, TWO_STAGES = (310, 370, 410, 520), (290, 300, 300, 310, 360)


def build(recipe: Recipe, vector: VectorFile) -> Page:
    """A workflow's page; `vector` is the file that it loads.

    Raises:
        ValueError: the recipe does not place every node of the template, or the page is larger than a screen.
    """
    graph = flatten(load_template(recipe.template), recipe.keep)
    for node in recipe.start_images:
        graph.nodes[node]["widgets_values"][0] = EXAMPLE_IMAGE
    if recipe.compared:
        compare(graph, recipe.compared)
    graph.nodes[recipe.prompt]["widgets_values"][0] = recipe.first.text
    if isinstance(recipe.page, Spread):
        return _spread(recipe, recipe.page, graph, vector)
    return _folded(recipe, recipe.page, graph)


def _spread(recipe: Recipe, page: Spread, graph: FlatGraph, vector: VectorFile) -> Page:
    chain = add_chain(graph, vector, recipe.clip, recipe.steered)
    reports = [[Group("Safety: what was done", chain.reports, RESULT_WIDTH, GREEN)]] if chain.reports else []
    columns = [
        *([_group(frame) for frame in column] for column in page.columns),
        [Group("Safety: carry the vector over", chain.carry, SAFETY_WIDTH, GREEN)],
        [Group("Safety: mix and apply", chain.apply, SAFETY_WIDTH, GREEN)],
        *([_group(frame) for frame in column] for column in page.sampling),
        [Group("Result", page.result, RESULT_WIDTH)],
        *reports,
    ]
    return Page(recipe.name, graph, _note(recipe, COMPARE_NOTE if recipe.compared else FIVE_NOTE), _numbered(columns))


def _folded(recipe: Recipe, page: Folded, graph: FlatGraph) -> Page:
    safe = add_safe_models(graph, recipe.clip, recipe.steered)
    beside = [node for _, nodes in page.beside for node in nodes]
    shown = {*page.load, *page.second, *page.below, *safe, page.result, *beside}
    sample, definition = fold(graph, set(graph.nodes) - shown, f"{SAMPLE}: {recipe.model}", page.promoted)
    first, *later = [Group("Safe Model", [id_], colour=GREEN) for id_ in safe]
    columns = [
        [Group(MODELS, page.load)],
        [*([Group("Load the second stage", page.second)] if page.second else []), first],
        *([group] for group in later),
        [Group(title, nodes) for title, nodes in page.beside],
        [Group(SAMPLE, [sample]), Group("Result", [page.result])],
    ]
    if page.below:
        columns[len(safe)].append(Group(VAE, page.below))
    widths = TWO_STAGES if later else ONE_STAGE
    sized = [[replace(group, width=width) for group in column] for column, width in zip(columns, widths, strict=True)]
    return Screen(recipe.name, graph, _note(recipe, NOTE), _numbered(sized), [definition])


def _note(recipe: Recipe, words: str) -> Note:
    told = {"look_for": recipe.first.look_for, "harmless": recipe.first.harmless}
    return Note(TITLE, words.format(model=recipe.model, advice=recipe.advice, **told).rstrip())


def _group(frame: Frame) -> Group:
    title, nodes = frame
    return Group(title, nodes, WIDTHS.get(title, WIDTH))


def _numbered(columns: Sequence[Sequence[Group]]) -> list[list[Group]]:
    """The frames in reading order: Step 1, Step 2 and so on."""
    step = count(1)
    return [[replace(group, title=f"Step {next(step)} - {group.title}") for group in column] for column in columns]
