"""Folders that are read-only, full, vanished or of somebody else: what is only a cache never stops a fit."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest
import torch
from family_cases import CASES
from portable import World
from portable_clip import TracedClip
from safety_steering_pack.safety_steering.alignment.maps import AlignmentSettings
from safety_steering_pack.safety_steering.errors import VectorFileError

CONDITIONING = {"target": "conditioning", "space": "auto"}
RIDGE = AlignmentSettings()


@pytest.fixture(scope="module")
def wan(comfy_in_process):
    return CASES["wan"].build(torch.float32)


def a_file(folder: Path) -> Path:
    folder.write_text("in the folder's place")
    return folder


def locked(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o555)
    return folder


UNWRITABLE = {
    "a file in its place": a_file,
    "below a file": lambda folder: a_file(folder) / "below",
    "read-only": pytest.param(locked, marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")),
    "a file system that takes no files": pytest.param(
        lambda folder: Path("/proc/safety"), marks=pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
    ),
}


@pytest.fixture
def alignment_folders(monkeypatch):
    """Registers folders of alignments as extra_model_paths.yaml does, and a private one."""
    import folder_paths

    def register(private, *folders):
        entry = ([str(folder) for folder in folders], {".safetensors"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, "safety_alignments", entry)
        cache = importlib.import_module("safety_steering_pack.bridge.cache")
        monkeypatch.setattr(cache, "private_folder", lambda: private)

    return register


@pytest.mark.parametrize("make", UNWRITABLE.values(), ids=UNWRITABLE)
def test_a_fit_is_kept_in_the_first_folder_that_takes_it(comfy_in_process, wan, tmp_path, alignment_folders, make):
    run = importlib.import_module("safety_steering_pack.bridge.alignment.run")
    closed, second, private = make(tmp_path / "closed"), tmp_path / "second", tmp_path / "private"
    clip, vector = TracedClip(CASES["wan"]), World().vector(40)
    told: list[str] = []

    def fit():
        return run.align(run.Inputs(vector, clip=clip, model=wan), CONDITIONING, RIDGE, told.append)

    alignment_folders(private, closed, second)
    first = fit()
    assert len(list((second / "cache").glob("*.safetensors"))) == 1
    read = len(clip.texts)
    assert fit().sha256 == first.sha256
    assert len(clip.texts) <= read + 1  # it came from the second folder; one text tells encoders apart
    alignment_folders(private, closed)
    assert fit().sha256 == first.sha256
    assert len(list((private / "safety_alignments").glob("*.safetensors"))) == 1
    assert told == []
    alignment_folders(closed, closed)
    assert fit().sha256 == first.sha256
    assert len(told) == 1
    assert told[0].startswith("This alignment cannot be kept, so that it is fitted again next time: no folder takes it")


def test_a_fit_survives_a_full_disk_and_a_file_of_somebody_else(comfy_in_process, wan, tmp_path, alignment_folders):
    resource = pytest.importorskip("resource")
    run = importlib.import_module("safety_steering_pack.bridge.alignment.run")
    inputs = run.Inputs(World().vector(40), clip=TracedClip(CASES["wan"]), model=wan)
    alignment_folders(tmp_path / "private", tmp_path / "full")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    told: list[str] = []
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a write past it fails as on a full disk
    try:
        first = run.align(inputs, CONDITIONING, RIDGE, told.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(told) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []  # nothing half-written stays
    run.align(inputs, CONDITIONING, RIDGE, told.append)
    (kept,) = tmp_path.rglob("*.safetensors")
    kept.unlink()
    kept.mkdir()  # can neither be read nor replaced
    again = [run.align(inputs, CONDITIONING, RIDGE, told.append) for _ in range(2)]
    assert {one.sha256 for one in again} == {first.sha256}
    assert (tmp_path / "private" / "safety_alignments" / kept.name).is_file()
    assert len(told) == 1


def test_a_carried_vector_is_made_once(comfy_in_process, wan, tmp_path, alignment_folders, monkeypatch, caplog):
    run = importlib.import_module("safety_steering_pack.bridge.alignment.run")
    carried = importlib.import_module("safety_steering_pack.bridge.alignment.carried")
    made = []

    def carry_over(*inputs):
        made.append(inputs)
        return original(*inputs)

    original = carried.carry_over
    monkeypatch.setattr(carried, "carry_over", carry_over)
    alignment_folders(tmp_path / "private", tmp_path / "models")
    vector = World().vector(40)
    alignment = run.align(run.Inputs(vector, clip=TracedClip(CASES["wan"]), model=wan), CONDITIONING, RIDGE)
    one_theme = vector.with_mix({vector.categories[0]: 0.5})
    first, again, sharper, mixed = (
        carried.carried(of, alignment, shrinkage)
        for of, shrinkage in ((vector, 0.2), (vector, 0.2), (vector, 0.1), (one_theme, 0.2))
    )
    assert len(made) == 3
    assert (again.sha256, again.mix, again.info) == (first.sha256, first.mix, first.info)
    assert (len({first.sha256, sharper.sha256}), dict(mixed.mix)) == (2, dict(one_theme.mix))
    assert len(list((tmp_path / "models" / "cache").glob("carried_*.safetensors"))) == 3
    closed = a_file(tmp_path / "closed")
    alignment_folders(closed, closed)
    assert carried.carried(vector, alignment, 0.2).sha256 == first.sha256
    assert "cannot be kept and is made again next time" in caplog.text


def test_files_are_saved_in_the_first_folder_that_takes_them(comfy_in_process, tmp_path, alignment_folders):
    folders = importlib.import_module("safety_steering_pack.bridge.folders")
    closed = a_file(tmp_path / "closed")
    alignment_folders(tmp_path, closed, tmp_path / "second")
    assert folders.new_path(folders.ALIGNMENTS, "mine") == tmp_path / "second" / "mine.safetensors"
    alignment_folders(tmp_path, closed)
    with pytest.raises(VectorFileError, match=r"No folder of safety_alignments can be written"):
        folders.new_path(folders.ALIGNMENTS, "mine")


def test_blocks_are_captured_where_the_output_folder_takes_nothing(comfy_in_process, tmp_path, monkeypatch):
    import folder_paths

    cache = importlib.import_module("safety_steering_pack.bridge.cache")
    monkeypatch.setattr(folder_paths, "output_directory", str(a_file(tmp_path / "output")))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    paths = cache.activation_paths("mine")
    assert cache.write_first(paths, lambda path: path.mkdir(parents=True) or path) == (
        tmp_path / "temp" / "safety_activations" / "mine"
    )


def test_a_vector_that_cannot_be_read_is_listed_as_such(comfy_in_process, tmp_path, monkeypatch):
    import folder_paths

    folders = importlib.import_module("safety_steering_pack.bridge.folders")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "safety_vectors", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "gone")
    (tmp_path / "text.safetensors").write_text("no vector")
    assert folders.vector_labels() == ["link.safetensors (cannot be read)", "text.safetensors (cannot be read)"]
