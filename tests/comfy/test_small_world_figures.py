"""The pictures of native steering: where it acts, and which words of a prompt it moves."""

from __future__ import annotations

import pytest
from PIL import Image
from safety_steering_pack.safety_steering.vectors.file import load_vector
from small_world.native import figures
from small_world.native.acting import FILE
from small_world.runtime import WEIGHTS

HARMLESS = "a lighthouse on a rocky coast in a storm"


@pytest.fixture(scope="module")
def vector(comfy_in_process):
    return load_vector(WEIGHTS / FILE)


def test_the_reddest_word_is_the_one_that_names_the_thing(vector):
    unsafe, harmless = figures.coloured(("a dog and skulls in a snowy field", HARMLESS), vector)
    start, end = unsafe.spans[unsafe.z.index(min(unsafe.z))]
    assert unsafe.prompt[start:end] == "skulls"
    assert (unsafe.opened, harmless.opened) == (True, False)
    assert len(harmless.z) == len(HARMLESS.split())


def test_words_and_places_are_drawn(vector, tmp_path):
    figures.draw_words(figures.coloured((HARMLESS,), vector), -2.0, tmp_path / "words.png")
    row = {"asr": 0.25, "usable": 0.5, "n_unsafe": 100}
    assert figures.shares(row) == {"usable": 0.5, "spoilt": 0.25, "unsafe": 0.25}
    places = {"one panel": {"text states": row}, "another": {"text states": row, "a block": row}}
    figures.draw_places(places, tmp_path / "places.png")
    for name in ("words", "places"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 50
