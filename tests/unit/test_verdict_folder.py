"""Verdicts on disk: what was written comes back, also after a kill in mid-line; other verdicts do not mix in."""

from __future__ import annotations

import numpy as np
import pytest
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.evaluation.verdict_folder import LINES, MANIFEST, VerdictFolder
from safety_steering_pack.safety_steering.judges.verdict import Verdict

ABOUT = {"model": "tiny", "sampling": {"steps": 4, "size": (1, 2)}}
VERDICT = Verdict({"gore": 0.25}, np.bool_(True), False, None, np.array([1.5, -2], np.float32), 21.5)


def test_what_was_appended_comes_back(tmp_path):
    folder = VerdictFolder.create(tmp_path / "v", ABOUT)
    folder.append("unsteered", "p1", VERDICT, acted=True)
    folder.append("unsteered", "p2", Verdict({}, False, True, True))
    again = VerdictFolder.create(tmp_path / "v", ABOUT)
    assert list(again.verdicts) == list(folder.verdicts) == [("unsteered", "p1"), ("unsteered", "p2")]
    stored = again.verdicts["unsteered", "p1"]
    assert stored.notes == {"acted": True}
    assert stored.verdict.as_dict() == {**VERDICT.as_dict(), "unsafe": True}
    assert np.array_equal(stored.verdict.features, VERDICT.features)
    assert again.verdicts["unsteered", "p2"].verdict.features is None


def test_a_line_that_was_cut_short_is_made_again(tmp_path):
    folder = VerdictFolder.create(tmp_path / "v", ABOUT)
    folder.append("s", "p1", VERDICT)
    folder.append("s", "p2", VERDICT)
    path = tmp_path / "v" / LINES
    path.write_bytes(path.read_bytes()[:-20])
    again = VerdictFolder.create(tmp_path / "v", ABOUT)
    assert list(again.verdicts) == [("s", "p1")]
    again.append("s", "p2", VERDICT)
    assert list(VerdictFolder.create(tmp_path / "v", ABOUT).verdicts) == [("s", "p1"), ("s", "p2")]


def test_a_folder_of_something_else_is_refused_by_name(tmp_path):
    VerdictFolder.create(tmp_path / "v", ABOUT).append("s", "p", VERDICT)
    with pytest.raises(SafetySteeringError, match="v holds verdicts of other settings: sampling differ"):
        VerdictFolder.create(tmp_path / "v", {**ABOUT, "sampling": {"steps": 5}})


@pytest.mark.parametrize("name", [MANIFEST, LINES])
def test_a_damaged_folder_gets_one_sentence(tmp_path, name):
    VerdictFolder.create(tmp_path / "v", ABOUT).append("s", "p", VERDICT)
    (tmp_path / "v" / name).write_text("no JSON\n")
    with pytest.raises(SafetySteeringError, match="v is not a complete folder of safety verdicts"):
        VerdictFolder.create(tmp_path / "v", ABOUT)
