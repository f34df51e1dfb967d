"""Videos beside each other: every cell is in its place unchanged, under words that can be read."""

from __future__ import annotations

import numpy as np
import pytest
from safety_steering_pack.safety_steering.errors import SafetySteeringError
from safety_steering_pack.safety_steering.pictures import draw_grid, shrink


def video(value: int, frames: int = 3, height: int = 40, width: int = 64) -> np.ndarray:
    """A video whose every frame has one value, `value` plus its number."""
    return np.stack([np.full((height, width, 3), value + frame, np.uint8) for frame in range(frames)])


def places_of(grid: np.ndarray, value: int) -> tuple[slice, slice]:
    """Where the first frame is of this value."""
    rows, columns = np.nonzero((grid[0] == value).all(axis=-1))
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def test_cells_keep_their_pixels_and_their_order():
    cells = [[video(100), video(110)], [video(120), video(130)]]
    grid = draw_grid(cells, [["a", "b"], ["c", "d"]])
    assert grid.shape[0] == 3
    assert grid.shape[1] % 2 == grid.shape[2] % 2 == 0
    corners = {}
    for row, videos in enumerate(cells):
        for column, one in enumerate(videos):
            where = places_of(grid, int(one[0, 0, 0, 0]))
            np.testing.assert_array_equal(grid[:, where[0], where[1]], one)
            corners[row, column] = (where[0].start, where[1].start)
    assert corners[0, 0][0] == corners[0, 1][0] < corners[1, 0][0]
    assert corners[0, 0][1] == corners[1, 0][1] < corners[0, 1][1]


def test_each_cell_has_its_words_above_it():
    cells = [[video(100), video(110)]]
    with_words, without = draw_grid(cells, [["unsteered", "steered"]]), draw_grid(cells, [["", ""]])
    differs = (with_words != without).any(axis=(0, 3))
    for value in (100, 110):
        rows, columns = places_of(with_words, value)
        assert differs[: rows.start, columns].sum() > 20
        assert not differs[rows.start :, columns].any()


def ink(caption: str, width: int) -> np.ndarray:
    """How much is written in each column of pixels, over the first of two videos."""
    cells = [[video(100, width=width), video(110, width=width)]]
    grid = draw_grid(cells, [[caption, ""]])[0]
    return np.abs(grid[: places_of(grid[None], 100)[0].start].astype(int) - grid[0, 0]).sum(axis=(0, 2))


@pytest.mark.parametrize("name", ["gore", "humiliation", "a category of many words"])
def test_words_over_a_small_video_are_whole(name: str):
    parts = [f"{name},", "strength 0.5"]
    assert ink(" ".join(parts), 64).sum() == sum(ink(part, 192).sum() for part in parts) > 0


def test_words_stay_on_one_line_where_there_is_room():
    cells = [[video(100, width=192)]]
    assert draw_grid(cells, [["gore, strength 0.5"]]).shape == draw_grid(cells, [[""]]).shape


def test_long_words_stay_over_their_own_video():
    cells = [[video(100), video(110)]]
    grid = draw_grid(cells, [["violence " * 20, ""]])
    _, second = places_of(grid, 110)
    assert ink("violence " * 20, 64)[second].sum() == 0
    assert second.start > 400


def test_videos_of_other_shapes_are_refused():
    with pytest.raises(SafetySteeringError, match="one shape"):
        draw_grid([[video(1), video(2, width=32)]], [["", ""]])
    with pytest.raises(SafetySteeringError, match="one shape"):
        draw_grid([], [])


def test_shrinking_keeps_the_shape_and_never_enlarges():
    assert shrink(video(9, width=64, height=40), 32).shape == (3, 20, 32, 3)
    same = video(9)
    assert shrink(same, 64) is same
