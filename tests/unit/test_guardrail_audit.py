"""The audit log: every job that was acknowledged is in it, whole, whatever happened to the process."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest
from audit_lines import read_log
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safety_steering_pack.commands.main import main
from safety_steering_pack.guardrail import audit
from safety_steering_pack.guardrail.audit import AuditLog
from safety_steering_pack.guardrail.errors import AuditError
from safety_steering_pack.guardrail.job_record import DELIVERED, STEERED, JobRecord, sum_up
from safety_steering_pack.guardrail.policy_settings import AuditSettings
from safety_steering_pack.safety_steering.steering.trace import ACTED, CallTrace, HookTrace, RunTrace

PLENTY = AuditSettings()


def record(prompt_id: str, **changes: Any) -> JobRecord:
    return JobRecord(prompt_id, "0" * 64, STEERED, DELIVERED, **changes)


def prompt_ids(folder) -> list[str]:
    return [str(line["prompt_id"]) for line in read_log(folder)]


def test_a_line_says_what_happened_and_no_prompt(tmp_path):
    log = AuditLog(tmp_path)
    output = {"file": "a.png", "file_sha256": "1" * 64}
    log.append(record("one", models=("0123456789abcdef",), outputs=(output,)), PLENTY)
    [line] = log.path.read_text().splitlines()
    entry = json.loads(line)
    assert (entry["prompt_id"], entry["verdict"], entry["decision"]) == ("one", "steered", "delivered")
    assert (entry["models"], entry["outputs"], entry["prompt"]) == (["0123456789abcdef"], [output], None)
    assert time.strptime(entry["time"], "%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.mark.parametrize("field", ["verdict", "decision"])
def test_a_word_that_is_none_of_ours_is_refused(field):
    words = {"verdict": STEERED, "decision": DELIVERED, field: "fine"}
    with pytest.raises(ValueError, match="'fine' is not one of"):
        JobRecord("one", "0" * 64, **words)


def test_runs_are_summed_up():
    def hook(before: float, after: float) -> HookTrace:
        return HookTrace("conditioning", {"violence": before}, {"violence": after}, {"violence": 1.0}, 0.1, 1.0)

    how = {"strength": 8.0, "level": 1.0, "basis": "benign only", "window": (0, 1)}
    about = {"vector": {"sha256": "abc"}, "warnings": ("other weights",), "settings": how}
    calls = (CallTrace(1.0, {}, (hook(-2, 0),)), CallTrace(1.0, {}, (hook(-4, 1),)), CallTrace(0.5, {}, note="cached"))
    idle = RunTrace(ACTED, {}, (CallTrace(1.0, {}),), vector={"sha256": "never acted"})
    told = sum_up([RunTrace(ACTED, calls=calls, **about), RunTrace(ACTED, calls=calls[:1], **about), idle])
    assert told == {
        "vectors": ("abc",),
        "blocks": ("conditioning",),
        "steps": 4,
        "steered_steps": 2,
        "settings": ({"vector": "abc", "strength": 8.0, "level": 1.0, "basis": "benign only"},),
        "projections": (
            {"hook_point": "conditioning", "category": "violence", "before": -8 / 3, "after": pytest.approx(1 / 3)},
        ),
        "warnings": ("other weights",),
    }
    assert sum_up([])["projections"] == ()


def test_numbers_gone_astray_are_still_json(tmp_path):
    hook = HookTrace("conditioning", {"violence": float("nan")}, {"violence": float("inf")}, {}, 0.1, 1.0)
    run = RunTrace(ACTED, {}, (CallTrace(1.0, {}, (hook,)),), vector={"sha256": "abc"})
    AuditLog(tmp_path).append(record("one", **sum_up([run])), PLENTY)
    [projection] = read_log(tmp_path)[0]["projections"]
    assert (projection["before"], projection["after"]) == (None, None)


def test_any_text_stays_on_its_line(tmp_path):
    log = AuditLog(tmp_path)
    texts = ["a\nb\r\n\u2028\x85", "\ud800 half a pair", '"}{', "日本"]
    for text in texts:
        log.append(record("x", prompt=text), PLENTY)
    assert [line["prompt"] for line in read_log(tmp_path)] == texts
    assert log.path.read_bytes().count(b"\n") == len(texts)


def test_rotation_loses_nothing_and_keeps_what_it_was_told(tmp_path):
    log = AuditLog(tmp_path)
    small = AuditSettings(rotate_megabytes=0.002)
    names = [str(number) for number in range(40)]
    for name in names:
        log.append(record(name), small)
    assert prompt_ids(tmp_path) == names
    files = list(tmp_path.glob("audit*.jsonl"))
    assert len(files) > 3
    assert all(file.stat().st_size <= 0.002 * 1024 * 1024 for file in files)
    for name in names:
        log.append(record(name), AuditSettings(rotate_megabytes=0.002, keep_files=2))
    assert len(list(tmp_path.glob("audit-*.jsonl"))) == 2
    left = prompt_ids(tmp_path)
    assert left == names[-len(left) :]


def test_a_line_longer_than_the_size_is_written_all_the_same(tmp_path):
    log = AuditLog(tmp_path)
    for name in "ab":
        log.append(record(name, prompt="x" * 5000), AuditSettings(rotate_megabytes=0.001))
    assert prompt_ids(tmp_path) == ["a", "b"]


def test_many_threads_write_whole_lines(tmp_path):
    log = AuditLog(tmp_path)

    def write(thread: int) -> None:
        for number in range(25):
            log.append(record(f"{thread}.{number}", prompt="x" * 3000), AuditSettings(rotate_megabytes=0.05))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(prompt_ids(tmp_path)) == sorted(f"{a}.{b}" for a in range(8) for b in range(25))


def test_a_folder_belongs_to_one_log(tmp_path):
    first = AuditLog(tmp_path)
    with pytest.raises(AuditError, match="Another server"):
        AuditLog(tmp_path)
    first.close()
    AuditLog(tmp_path).append(record("one"), PLENTY)


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="The audit folder 'file' cannot be written"):
        AuditLog(tmp_path / "file")


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_failed_write_is_told_and_leaves_no_part_of_a_line(tmp_path, monkeypatch, failing):
    """A disk that takes half a line, or that fails to keep it."""
    log = AuditLog(tmp_path)
    log.append(record("one"), PLENTY)
    before, write = log.path.read_bytes(), os.write

    def half(descriptor: int, line: bytes) -> int:
        return write(descriptor, line[: len(line) // 2])

    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(audit.os, failing, half if failing == "write" else fails)
        with pytest.raises(AuditError, match="cannot be written"):
            log.append(record("two"), PLENTY)
    assert log.path.read_bytes() == before
    log.append(record("three"), PLENTY)
    assert prompt_ids(tmp_path) == ["one", "three"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_a_log_cut_anywhere_is_mended_at_the_next_start(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("audit")
    log = AuditLog(folder)
    for name in "abc":
        log.append(record(name, prompt="\n"), PLENTY)
    log.close()
    whole = log.path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    log.path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert prompt_ids(folder) == list("abc"[:kept])  # reading does not stumble over it either
    mended = AuditLog(folder)
    aside = b"".join(file.read_bytes() for file in folder.glob("torn-*.txt"))
    assert mended.path.read_bytes() + aside == whole[:cut]
    mended.append(record("d"), PLENTY)
    assert prompt_ids(folder) == [*"abc"[:kept], "d"]
    mended.close()


def _write_until_killed(folder, acknowledge: int, first: int) -> None:
    log = AuditLog(folder)
    for number in range(first, first + 100_000):
        # long lines: the kernel lets a kill through between the pages of one write
        log.append(record(str(number), prompt="x" * 400_000), AuditSettings(rotate_megabytes=2, keep_files=6))
        os.write(acknowledge, f"{number}\n".encode())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked writer")
def test_a_writer_killed_25_times_loses_nothing_it_acknowledged(tmp_path):
    last = -1
    for attempt in range(25):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                _write_until_killed(tmp_path, writer, last + 1)
            finally:
                os._exit(1)
        os.close(writer)
        with open(reader) as acknowledged:
            first_line = acknowledged.readline()  # it is at work
            assert first_line, "the writer died by itself"
            time.sleep(0.001 * attempt)
            os.kill(child, signal.SIGKILL)
            numbers = [int(line) for line in [first_line, *acknowledged]]
        os.waitpid(child, 0)
        AuditLog(tmp_path).close()
        found = [int(name) for name in prompt_ids(tmp_path)]
        assert found == list(range(found[0], found[-1] + 1)), "a line is missing, doubled or torn"
        assert numbers[-1] <= found[-1] <= numbers[-1] + 1, "an acknowledged line is lost"
        last = found[-1]
    assert last > 25


# --- the chain


@pytest.fixture
def chained(tmp_path):
    """A log of six lines over several files."""
    log = AuditLog(tmp_path)
    for number in range(3):
        log.append(record(f"first {number}"), AuditSettings(rotate_megabytes=0.001))
    log.close()
    log = AuditLog(tmp_path)  # a restart goes on with the chain
    for number in range(3):
        log.append(record(f"then {number}"), AuditSettings(rotate_megabytes=0.001))
    log.close()
    return tmp_path


def test_a_whole_log_is_verified(chained, capsys):
    assert "6 lines follow one another without a gap." in audit.verify_log(chained)
    assert len(audit.log_files(chained)) > 1
    assert main(["audit", "verify", str(chained)]) == 0
    assert "without a gap" in capsys.readouterr().out
    audit.log_files(chained)[0].unlink()
    assert "Older files were deleted." in audit.verify_log(chained)


@pytest.mark.parametrize("how", ["altered", "taken out", "doubled", "swapped"])
def test_a_gap_is_shown(chained, how, capsys):
    file = audit.log_files(chained)[0]
    lines = [line for path in audit.log_files(chained) for line in path.read_bytes().splitlines(keepends=True)]
    for path in audit.log_files(chained):
        path.unlink()
    if how == "altered":
        lines[2] = lines[2].replace(b"steered", b"no rule")
    elif how == "taken out":
        del lines[2]
    elif how == "doubled":
        lines.insert(2, lines[2])
    else:
        lines[2], lines[3] = lines[3], lines[2]
    file.write_bytes(b"".join(lines))
    with pytest.raises(AuditError, match=r"Line \d of .* does not follow the line before it"):
        audit.verify_log(chained)
    assert main(["audit", "verify", str(chained)]) == 1
    assert "does not follow" in capsys.readouterr().err


def test_a_full_disk_is_a_problem_until_there_is_room(tmp_path, monkeypatch):
    log, full = AuditLog(tmp_path), True

    def write(descriptor, data):
        if full:
            raise OSError(28, "No space left on device")
        return os_write(descriptor, data)

    os_write = os.write
    monkeypatch.setattr(audit.os, "write", write)
    with pytest.raises(AuditError):
        log.append(record("lost"), PLENTY)
    with pytest.raises(AuditError, match="Make room in its folder"):
        log.check()
    full = False
    log.check()
    log.append(record("kept"), PLENTY)
    assert prompt_ids(tmp_path) == ["kept"]
    assert "There is 1 line." in audit.verify_log(tmp_path)
