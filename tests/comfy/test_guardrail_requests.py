"""Requests that no honest client sends: a guarded server answers each with a sentence, and goes on serving."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from guarded import GuardedServer, guarded_copy, once
from safety_steering_pack.commands.api_graph import PromptGraph
from steered_graphs import FAMILIES, patch
from tiny.graphs import save_latent

JSON = {"Content-Type": "application/json"}


def answer(guarded, path, data=None, method=None, headers=None):
    """The status code and body of a request; `data` that is no bytes is sent as JSON."""
    body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
    request = urllib.request.Request(guarded.address + path, body, {**JSON, **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def tiny_prompt(**settings):
    graph = PromptGraph()
    save_latent(graph, FAMILIES["wan"].graph(graph, steps=1, **settings).samples, "request")
    return once(graph)


def nested(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def still_works(guarded):
    assert guarded.status()["serving"]
    guarded.client.run(tiny_prompt()).succeeded()


ENVELOPES = {
    "client_id of a list": ({"client_id": [1]}, "'client_id' is a list; expected a text"),
    "client_id within extra_data": ({"extra_data": {"client_id": {"a": 1}}}, "'extra_data.client_id' is an object"),
    "client_id of a megabyte": ({"client_id": "x" * 10**6}, "'client_id' is xxx"),
    "a number that is none": ({"number": float("nan")}, "'number' is nan; expected a finite number"),
    "a number beyond floats": ({"number": 10**400}, "'number' is 1000"),
    "a number as text": ({"number": "3"}, "expected a finite number"),
    "before the others": ({"number": -5}, "Jumping the queue is not permitted here (permits.jump_queue)"),
    "to the front": ({"front": True}, "Jumping the queue is not permitted"),
    "an id that is no UUID": ({"prompt_id": "1"}, "'prompt_id' is 1; expected a UUID"),
    "an id of another type": ({"prompt_id": ["a"]}, "'prompt_id' is a list; expected a UUID"),
    "targets that are no list": ({"partial_execution_targets": 7}, "expected a list of node ids"),
    "workflow of another type": ({"extra_data": {"extra_pnginfo": [1]}}, "expected an object"),
    "nested in extra data": ({"extra_data": {"a": nested(500)}}, "nested more than 100 levels deep"),
    "nested beside it": ({"whatever": nested(120)}, "nested more than 100 levels deep"),
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_the_envelope_of_a_prompt(guarded, name):
    fields, words = ENVELOPES[name]
    status, said = answer(guarded, "/prompt", {"prompt": tiny_prompt(), **fields})
    assert status == 400
    assert words in json.loads(said)["error"]["message"]
    assert len(said) < 2000
    assert guarded.status()["serving"]


def test_values_nested_in_a_node(guarded):
    prompt = tiny_prompt()
    next(iter(prompt.values()))["inputs"]["deep"] = nested(500)
    assert answer(guarded, "/prompt", {"prompt": prompt})[0] == 400
    deepest = b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert answer(guarded, "/prompt", deepest)[0] == 400
    still_works(guarded)


def test_one_id_and_one_number_for_many(guarded):
    body = {"prompt": tiny_prompt(), "prompt_id": str(uuid.uuid4()), "number": 10**6}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: answer(guarded, "/prompt", body), range(8)))
    assert sorted(status for status, _ in answers) == [200, *[400] * 7]
    assert all("was used before" in said for status, said in answers if status == 400)
    wait_until_idle(guarded)
    assert answer(guarded, "/prompt", body)[0] == 400  # it is in the history now
    still_works(guarded)


def wait_until_idle(guarded):
    while json.loads(answer(guarded, "/prompt")[1])["exec_info"]["queue_remaining"]:
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/queue", {"delete": 5}),
        ("/queue", {"delete": [[1]]}),
        ("/queue", [1]),
        ("/history", {"clear": "yes"}),
        ("/interrupt", {"prompt_id": {"a": 1}}),
        ("/interrupt", "x"),
        ("/free", {"unload_models": nested(3)}),
        ("/api/jobs/cancel", {"job_ids": "abc"}),
        ("/users", {"username": ["a"]}),
        ("/users", []),
        ("/settings", [1]),
        ("/settings/Comfy.Theme", nested(500)),
    ],
)
def test_bodies_of_other_routes(guarded, path, body):
    for prefix in ("", "/api"):
        if prefix and path.startswith("/api"):
            continue
        status, said = answer(guarded, prefix + path, body)
        assert status == 400, (status, said)
        assert json.loads(said)["error"]["type"] == "safety_steering_refused"
    assert guarded.status()["serving"]


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def form(name, data=b"x", field=b"image"):
    part = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n' % (field, name, data)
    return part + b"--x--\r\n"


@pytest.mark.parametrize(
    ("path", "data", "method", "headers"),
    [
        ("/upload/image", form(b"a\x00b.png"), "POST", FORM),
        ("/upload/image", form(b"a" * 300), "POST", FORM),
        ("/upload/image", form(b"."), "POST", FORM),
        ("/upload/image", form(b"a.png")[:40], "POST", FORM),
        ("/upload/mask", b"garbage", "POST", FORM),
        ("/userdata/a%00b", b"x", "POST", {}),
        ("/userdata/%00", None, "DELETE", {}),
        ("/userdata/%00/move/b", b"", "POST", {}),
        ("/users", b"{}", "POST", {}),
        ("/history?max_items=many", None, "GET", {}),
        ("/queue", b"{}", "POST", {"Content-Encoding": "gzip"}),
        ("/queue", b"{}", "POST", {"Content-Type": "application/json; charset=none"}),
        ("/prompt", "in UTF-16".encode("utf-16"), "POST", {}),
    ],
)
def test_what_core_fails_at_is_the_requests_fault(guarded, path, data, method, headers):
    """Core would answer 500 with a traceback in its log, as if the server had failed."""
    before = len(guarded.log())
    for prefix in ("", "/api"):
        status, said = answer(guarded, prefix + path, data, method, headers)
        assert status == 400, (status, said)
        assert json.loads(said)["error"]["message"].endswith((".", "UTF-8."))
    assert "Error handling request" not in guarded.log()[before:]
    assert guarded.status()["serving"]


@pytest.mark.parametrize("asked", ["preview=webp;90", "preview=jpeg;99999999999999", "channel=rgb", "channel=a"])
def test_a_file_that_is_no_picture_seen_as_one(guarded, asked):
    assert answer(guarded, "/upload/image", form(b"nopicture.png"), "POST", FORM)[0] == 200
    before = len(guarded.log())
    status, said = answer(guarded, f"/view?filename=nopicture.png&type=input&{asked}", method="GET")
    assert (status, json.loads(said)["error"]["type"]) == (400, "safety_steering_refused")
    assert "Error handling request" not in guarded.log()[before:]


def test_settings_are_whole_after_a_bad_body(guarded):
    assert answer(guarded, "/settings", {"a": 1})[0] == 200
    answer(guarded, "/settings", {"b": nested(400)})
    assert json.loads(answer(guarded, "/settings")[1])["a"] == 1


def test_a_message_that_cannot_be_sent_ends_nothing(guarded):
    """A node shows what is no JSON, or raises what core does not catch."""
    graph = PromptGraph()
    graph.add("Hostile_EndWorker", raising=True)
    run = guarded.client.run(once(graph))
    assert run.status == "error"
    still_works(guarded)


def test_a_worker_that_dies_ends_the_server(base_directory, tmp_path):
    with GuardedServer(guarded_copy(base_directory, tmp_path / "comfyui")) as server:
        graph = PromptGraph()
        graph.add("Hostile_EndWorker", raising=False)
        server.client.submit(graph.prompt)
        deadline = time.monotonic() + 60
        while server._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert server._process.poll() == 70
        assert "The worker of this server has died" in server.log()


# --- a fair share


def slow_prompt():
    graph = PromptGraph()
    patched = patch("SafetySteeringDev_Fail", fail_at_call=0, seconds_per_call=0.3)
    save_latent(graph, FAMILIES["wan"].graph(graph, patched, steps=40).samples, "slow")
    return once(graph)


def test_a_fair_share_of_the_queue(guarded):
    guarded.set_policy(limits={"queue": 4, "per_tenant": 2, "tenant_header": "X-Tenant", "prompt_megabytes": 0.5})
    busy = guarded.client.submit(slow_prompt())
    guarded.client.wait_for(busy, "progress")
    send = lambda who: answer(guarded, "/prompt", {"prompt": tiny_prompt()}, headers={"X-Tenant": who})  # noqa: E731
    try:
        assert [send("a")[0] for _ in range(2)] == [200, 200]
        status, said = send("a")
        assert status == 400
        assert "2 of your jobs wait already" in said
        assert [send("b")[0] for _ in range(2)] == [200, 200]
        assert "4 jobs wait already, and this server takes no more (limits.queue)" in send("c")[1]
        large = {"prompt": tiny_prompt(), "extra_data": {"x": "y" * 600_000}}
        assert "this server takes 0.5 (limits.prompt_megabytes)" in answer(guarded, "/prompt", large)[1]
        # nobody touches the jobs of others
        for path, body in (
            ("/queue", {"clear": True}),
            ("/queue", {"delete": [busy]}),
            ("/interrupt", {}),
            ("/interrupt", {"prompt_id": busy}),
            ("/history", {"clear": True}),
            ("/api/jobs/cancel", {"job_ids": [busy]}),
            (f"/api/jobs/{busy}/cancel", {}),
        ):
            assert answer(guarded, path, body, headers={"X-Tenant": "a"})[0] == 403, path
        queue = json.loads(answer(guarded, "/queue", headers={"X-Tenant": "a"})[1])
        assert [len(queue[name]) for name in ("queue_running", "queue_pending")] == [0, 2]
        own = queue["queue_pending"][0][1]
        assert answer(guarded, "/queue", {"delete": [own]}, headers={"X-Tenant": "a"})[0] == 200
        assert send("a")[0] == 200
    finally:
        answer(guarded, "/queue", {"clear": True})
        guarded.client.interrupt()
        wait_until_idle(guarded)
    still_works(guarded)


def test_pages_of_ones_own_jobs(guarded):
    """Jobs of others do not push a client's own off its page, and are not counted."""
    guarded.set_policy(limits={"tenant_header": "X-Tenant"})
    own = {"X-Tenant": "paging"}
    ids = []
    for who in (own, own, {"X-Tenant": "other"}, {"X-Tenant": "other"}):
        sent = json.loads(answer(guarded, "/prompt", {"prompt": tiny_prompt()}, headers=who)[1])["prompt_id"]
        ids += [sent] if who is own else []
    wait_until_idle(guarded)
    read = lambda path: json.loads(answer(guarded, path, headers=own)[1])  # noqa: E731
    assert list(read("/history?max_items=1")) == ids[1:]
    assert list(read("/history?max_items=1&offset=0")) == ids[:1]
    assert list(read("/api/history")) == ids
    first = read("/api/jobs?limit=1")
    assert [job["id"] for job in first["jobs"]] == ids[1:]  # the newest first
    assert first["pagination"] == {"offset": 0, "limit": 1, "total": 2, "has_more": True}
    assert [job["id"] for job in read("/api/jobs?limit=5&offset=1")["jobs"]] == ids[:1]


@pytest.mark.parametrize(
    "path",
    [
        "/internal/logs",
        "/internal/folder_paths",
        "/internal/files/output",
        "/system_stats",
        "/api/system_stats",
        "/view_metadata/loras?filename=x.safetensors",
        "/experiment/models",
        "/api/assets",
    ],
)
def test_forwarded_clients_read_only_what_a_client_needs(guarded, path):
    assert answer(guarded, path, headers={"X-Forwarded-For": "1.2.3.4"})[0] == 403


def test_forwarded_clients_see_no_other_jobs(guarded):
    run = guarded.client.run(tiny_prompt()).succeeded()
    far = {"X-Forwarded-For": "1.2.3.4"}
    for path in ("/history", "/api/jobs", "/queue", "/api/history", "/api/queue"):
        status, said = answer(guarded, path, headers=far)
        assert status == 200
        assert run.prompt_id not in said
    assert run.prompt_id in answer(guarded, f"/history/{run.prompt_id}", headers=far)[1]
    for path in ("/", "/object_info", "/view?filename=none.png", "/extensions"):
        assert answer(guarded, path, headers=far)[0] in (200, 404)


def text_job(*nodes):
    """A chain of text nodes, each with the former's text in its input `string`, and a preview of the last."""
    graph = PromptGraph()
    text = graph.add("PrimitiveStringMultiline", value="a" * 40 + "!")[0]
    for name, settings in nodes:
        strings = dict.fromkeys(settings.pop("links", ("string",)), text)
        text = graph.add(name, settings, **strings)[0]
    graph.add("PreviewAny", source=text)
    return graph.prompt


FLAGS = {"case_insensitive": True, "multiline": False, "dotall": False}
SLOW = {
    "replace": text_job(("RegexReplace", {"regex_pattern": "(a+)+$", "replace": "b", "count": 0, **FLAGS})),
    "match": text_job(("RegexMatch", {"regex_pattern": "(a|aa)+$", **FLAGS})),
    "extract": text_job(
        ("RegexExtract", {"regex_pattern": "^(a*)*$", "mode": "All Groups", "group_index": 1, **FLAGS})
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_pattern_that_takes_for_ever_holds_nobody(guarded, name):
    job = guarded.client.submit(SLOW[name])
    before = time.monotonic()
    assert guarded.status()["serving"]  # at once: the server answers while the pattern is tried
    assert time.monotonic() - before < 5
    run = guarded.client.result(job)
    assert "This pattern was not done with the text in 10 s" in run.error.message
    still_works(guarded)


def test_an_honest_pattern(guarded):
    prompt = text_job(("RegexReplace", {"regex_pattern": "a+", "replace": "b", "count": 0, **FLAGS}))
    run = guarded.client.run(prompt).succeeded()
    assert [shown["text"] for shown in run.outputs.values()] == [["b!"]]


def test_a_text_that_grows_and_grows(guarded):
    links = ("string_a", "string_b")
    doubled = [("StringConcatenate", {"delimiter": "", "links": links}) for _ in range(40)]
    run = guarded.client.run(text_job(*doubled))
    assert "It gives a text of more than 16 million letters" in run.error.message
    still_works(guarded)
