"""The policy in force: replaced whole between jobs, and gone while the file is bad."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from policy_files import rule, write_policy
from safety_steering_pack.guardrail import policy_store
from safety_steering_pack.guardrail.errors import PolicyError
from safety_steering_pack.guardrail.policy_store import PolicyStore
from safety_steering_pack.guardrail.public_folders import PublicFolders


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(policy_store, "SETTLE_SECONDS", 0.001)


def test_an_unchanged_file_gives_the_same_object(tmp_path):
    path = write_policy(tmp_path)
    store = PolicyStore(path)
    first = store.current()
    os.utime(path, (1, 1))
    path.write_bytes(path.read_bytes())
    assert store.current() is first


def test_a_change_is_seen_even_with_the_same_size_and_time(tmp_path):
    path = write_policy(tmp_path, rules=rule(tmp_path, more="strength = 1"))
    stat = path.stat()
    store = PolicyStore(path)
    running = store.current()
    write_policy(tmp_path, rules=rule(tmp_path, more="strength = 2"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert store.current().rules[0].settings.strength == 2
    assert running.rules[0].settings.strength == 1  # a running job keeps its own


@pytest.mark.parametrize("bad", ["not TOML at all", None])
def test_a_bad_file_leaves_no_policy_in_force_until_it_is_mended(tmp_path, bad):
    path = write_policy(tmp_path)
    store = PolicyStore(path)
    good = store.current()
    if bad is None:
        path.unlink()
    else:
        path.write_text(bad)
    for _ in range(2):
        with pytest.raises(PolicyError):
            store.current()
    write_policy(tmp_path)
    assert store.current().sha256 == good.sha256


def test_a_missing_vector_put_back_mends_it_although_the_policy_is_the_same(tmp_path):
    path, vector = write_policy(tmp_path), tmp_path / "wan.safetensors"
    vector.rename(tmp_path / "away")
    store = PolicyStore(path)
    with pytest.raises(PolicyError):
        store.current()
    (tmp_path / "away").rename(vector)
    assert store.current().rules


def test_a_new_policy_is_checked_for_its_place_too(tmp_path):
    store = PolicyStore(write_policy(tmp_path), PublicFolders((tmp_path,)))
    with pytest.raises(PolicyError, match="where clients can write"):
        store.current()


def test_a_file_caught_half_written_is_waited_for(tmp_path, monkeypatch):
    """A writer that truncates, writes the beginning, and then the rest: the beginning alone would flag, not refuse."""
    path = write_policy(tmp_path)
    store = PolicyStore(path)
    store.current()
    whole = path.read_text().replace("version = 1", "version = 1\nwithout_rule = 'flag'")
    path.write_text(whole.partition("[[rules]]")[0] + "rules = []\n")
    monkeypatch.setattr(policy_store, "sleep", lambda _: path.write_text(whole))
    assert len(store.current().rules) == 1


def test_a_file_that_never_rests_is_refused(tmp_path, monkeypatch):
    path = write_policy(tmp_path)
    versions = (f"# {i}\n{path.read_text()}" for i in range(1000))
    monkeypatch.setattr(policy_store, "sleep", lambda _: path.write_text(next(versions)))
    with pytest.raises(PolicyError, match="keeps changing"):
        PolicyStore(path).current()


def test_many_threads_meet_only_whole_policies(tmp_path):
    """Renamed into place 25 times while 4 threads ask: each answer is one of the policies, never a mixture."""
    path = write_policy(tmp_path)
    store = PolicyStore(path)
    texts = {s: path.read_text().replace("sha256 =", f"strength = {s}\nname = '{s}'\nsha256 =") for s in range(1, 26)}
    seen, wrong, done = set(), [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            [found] = store.current().rules
            seen.add(found.name)
            if found.name != "rule 1" and float(found.name) != found.settings.strength:
                wrong.append(found)
            time.sleep(0.001)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    store.current()
    for strength, text in texts.items():
        replacement = Path(f"{path}.new")
        replacement.write_text(text)
        replacement.replace(path)
        while str(strength) not in seen:
            assert any(thread.is_alive() for thread in threads)
            time.sleep(0.001)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
