"""docs/models.md is what `make models-doc` would write."""

from __future__ import annotations

import models_doc


def test_the_document_is_current():
    written = models_doc.DOCUMENT.read_text(encoding="utf-8")
    assert written == models_doc.render(), "run `make models-doc`"


def test_the_models_that_reins_names_are_listed():
    rows = [line for line in models_doc.REINS.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == ["| Model", "| CogVideoX", "| Wan 2.1", "| Allegro"]
    assert models_doc.REINS in models_doc.render()


def test_the_papers_models_have_a_row_and_a_case():
    from family_cases import CASES
    from safety_steering_pack.bridge.models.families import FAMILIES

    families = {family.name for family in FAMILIES}
    assert set(models_doc.PAPERS) <= families
    assert set(models_doc.PAPERS) <= {case.family for case in CASES.values()}
