"""How a guarded server starts: it serves guarded, or it ends and says why."""

from __future__ import annotations

import pytest
from comfy_server import ComfyServer, ServerFailed
from guarded import environment
from safety_steering_pack.safety_steering.errors import NotSteeredError, SafetySteeringError

POLICY = "SAFETY_STEERING_POLICY"


def test_a_policy_that_clients_could_write_ends_the_server(tmp_path):
    path = tmp_path / "input" / "policy.toml"
    path.parent.mkdir()
    path.write_text("version = 1\n")
    with environment(POLICY, str(path)), pytest.raises(ServerFailed) as failed:
        ComfyServer(tmp_path, dev_nodes=False, start_timeout=600).start()
    assert "the guardrail could not start, so the server ends: The policy policy.toml lies in" in str(failed.value)
    assert "where clients can write over HTTP" in str(failed.value)


def test_the_server_said_that_it_is_guarded(guarded):
    log = guarded.log()
    assert "Moved the states at block.blocks.0.image" in log
    assert "in 2 of 2 steps" in log
    assert "this server is guarded. The policy is in force." in log


def test_an_unguarded_server_has_nothing_of_it(server):
    with pytest.raises(Exception, match="404"):
        server.client.request("/safety_steering/status")
    assert "guarded" not in server.log()


def test_whatever_fails_while_a_guarded_server_loads_ends_it(comfy_in_process, monkeypatch):
    from safety_steering_pack.bridge.guarded_mode import guarded_or_not_at_all

    with pytest.raises(ImportError), guarded_or_not_at_all():
        raise ImportError("no pydantic")
    monkeypatch.setenv(POLICY, "/nowhere/policy.toml")
    with pytest.raises(SystemExit, match="could not start, so the server ends: no pydantic"), guarded_or_not_at_all():
        raise ImportError("no pydantic")


def test_a_health_check_in_which_nothing_is_steered_fails(comfy_in_process):
    from safety_steering_pack.bridge.enforcement.health_check import check_health
    from safety_steering_pack.bridge.enforcement.jobs.job_guard import JobGuard

    jobs = JobGuard(None)  # nothing of it is in core's way here
    with pytest.raises(NotSteeredError, match=r"asked for 1 gaps and got \[\]"):
        check_health(jobs)
    assert jobs.job is None


def test_a_core_that_is_built_otherwise_is_refused(comfy_in_process, monkeypatch):
    import comfy.sampler_helpers
    import comfy.samplers
    from safety_steering_pack.bridge.enforcement.choke_points import UnknownCore, choke_points

    for point in choke_points().values():
        point.check()
    original = comfy.sampler_helpers.prepare_model_patcher
    monkeypatch.setattr(comfy.sampler_helpers, "prepare_model_patcher", lambda model, model_options: None)
    with pytest.raises(UnknownCore, match=r"takes \(model, model_options\), expected \(model, conds, model_options\)"):
        choke_points()["run"].check()
    monkeypatch.setattr(comfy.sampler_helpers, "prepare_model_patcher", original)
    monkeypatch.setattr(comfy.samplers.CFGGuider, "sample", lambda self, *args: None)
    with pytest.raises(UnknownCore, match=r"does not look .*prepare_model_patcher up"):
        choke_points()["run"].check()
    assert issubclass(UnknownCore, SafetySteeringError)


def test_another_pack_that_comes_in_between_is_noticed(comfy_in_process, monkeypatch):
    import comfy.sampler_helpers
    from safety_steering_pack.bridge.enforcement.choke_points import Guarded, UnknownCore

    def around(function):
        return lambda *args: function(*args)

    # monkeypatch puts the original back when the test ends
    monkeypatch.setattr(comfy.sampler_helpers, "prepare_model_patcher", comfy.sampler_helpers.prepare_model_patcher)
    guarded = Guarded({"run": around})
    guarded.check()
    comfy.sampler_helpers.prepare_model_patcher = around(comfy.sampler_helpers.prepare_model_patcher)
    with pytest.raises(UnknownCore, match=r"Something in test_guardrail_start.py has replaced .*patcher since"):
        guarded.check()
    guarded.check()  # it was put back
    ended = []
    guarded._end = lambda: ended.append(True)
    for _ in range(10):
        comfy.sampler_helpers.prepare_model_patcher = around(comfy.sampler_helpers.prepare_model_patcher)
        with pytest.raises(UnknownCore):
            guarded.check()
    assert ended == [True]
