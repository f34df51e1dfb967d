"""A file is there whole or not at all."""

from __future__ import annotations

import pytest
from safety_steering_pack.safety_steering.files import replace_file, write_atomically


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_atomically(tmp_path / "made" / "a.txt", b"old")

    def fail(temporary):
        temporary.write_bytes(b"half of the n")
        assert path.read_bytes() == b"old"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fail)
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [("a.txt", b"old")]


def test_a_file_that_may_not_be_overwritten_is_not_even_begun(tmp_path):
    path = replace_file(tmp_path / "a.txt", lambda temporary: temporary.write_text("old"))
    with pytest.raises(FileExistsError, match=r"a\.txt exists already"):
        replace_file(path, lambda temporary: pytest.fail("begun"), overwrite=False)
    assert path.read_text() == "old"
