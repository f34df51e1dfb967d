"""`make soak`: many clients at once on a guarded server, long enough to see a leak, or a job that slips through.

    .venv/bin/python tools/start.py soak [--jobs 300] [--clients 20] [--queued 200] [--rewrites 50] [--seed 0]

A real ComfyUI with a tiny Wan model, under a policy that changes three times on the way. Clients send good graphs,
graphs and requests that are malformed, hostile or interrupted, and hang up. Then: was every delivered file steered as
its own policy says (from the audit's numbers), is each signature good, does a job run alone give the same bits, did
memory grow, did anything unhandled happen? A second part queues jobs while the policy is rewritten again and again.
Writes bench/results/soak.json; the exit code says whether every bar was met.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[1]
import playground
import torch
from guarded import GuardedServer, PolicyRule, moved
from safety_steering_pack.commands.api_graph import PromptGraph
from safety_steering_pack.commands.comfy_client import ComfyClient, PromptRejected, Run
from safety_steering_pack.guardrail.evidence import verify_file
from safety_steering_pack.safety_steering.files import commit
from steered_graphs import FAMILIES, load_latent, patch
from tiny.graphs import save_latent

RESULT = REPO_ROOT / "bench" / "results" / "soak.json"
GAP = 4.0
WARM = 50  # jobs after which memory is compared
MOST_GROWTH = 0.03
STRENGTHS = (1.0, 2.0, 3.0, 1.5)  # of the first policy, and of the three that follow
RERUN = 5
KINDS = {"good": 75, "hostile": 5, "hostile request": 5, "malformed": 5, "interrupted": 5, "hung up": 5}
NESTED: list[Any] = []
for _ in range(400):
    NESTED = [NESTED]
# fields of a request, each of which once ended the server, its worker, or everybody's turn
REQUESTS: tuple[dict[str, Any], ...] = (
    {"client_id": [1]},
    {"extra_data": {"deep": NESTED}},
    {"number": -1},
    {"prompt_id": "no uuid"},
    {"client_id": "x" * 2_000_000},
)
UNHANDLED = (
    "Error handling request",
    "core failed while it ran a job",
    "a job could not be written down",
    "Exception in thread",
)


@dataclass
class Tally:
    """What the clients saw, for all threads."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    started: int = 0
    ended: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    runs: dict[str, tuple[dict[str, Any], Run]] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


def graph_of(seed: int, steps: int, hostile: str = "") -> dict[str, Any]:
    """A text-to-video graph that saves its latents; `hostile`: what it does besides, one of HOSTILE."""
    graph = PromptGraph()
    change = HOSTILE[hostile] if hostile else None
    sampled = FAMILIES["wan"].graph(graph, change, seed=seed, steps=steps, prompt=f"a fox, take {seed}")
    save_latent(graph, sampled.samples, "soak")
    return graph.prompt


HOSTILE = {
    "skips the steered block": patch("SafetySteeringDev_ReplaceBlock", block=2),
    "replaces a function of core": patch("Hostile_ReplaceCore", block=0),
    "changes the shared model": patch("Hostile_ChangeModel", how="module"),
}


def resident(pid: int) -> int:
    """Resident memory of a process, bytes."""
    line = next(row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def work(server: GuardedServer, tally: Tally, jobs: int, seed: int) -> None:
    """One client: takes jobs until none is left."""
    chance = random.Random(seed)
    client = connect(server)
    while True:
        with tally.lock:
            if tally.started == jobs:
                break
            tally.started += 1
            number = tally.started
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        try:
            client = one_job(server, client, tally, kind, number, chance)
        except Exception as error:
            tally.complaints.append(f"job {number} ({kind}): {type(error).__name__}: {error}")
        with tally.lock:
            tally.ended += 1
            tally.kinds[kind] += 1
            tally.memory[tally.ended] = resident(server.pid)
    client.close()


def connect(server: GuardedServer) -> ComfyClient:
    client = ComfyClient(server.address, server.check)
    client.connect()
    return client


def one_job(
    server: GuardedServer, client: ComfyClient, tally: Tally, kind: str, number: int, chance: random.Random
) -> ComfyClient:
    """Run one job of a kind; returns the client to go on with."""
    prompt = graph_of(number, chance.randint(2, 4), chance.choice(list(HOSTILE)) if kind == "hostile" else "")
    if kind == "hostile request":
        body = json.dumps({"prompt": prompt, **chance.choice(REQUESTS)}).encode()
        request = urllib.request.Request(f"{server.address}/prompt", body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=300).close()
        except urllib.error.HTTPError as error:
            if error.code == 400:
                return client
        raise AssertionError("a hostile request was taken")
    if kind == "malformed":
        prompt[chance.choice(list(prompt))] = chance.choice([[], {"class_type": 7}, {"inputs": {}}, "x"])
        try:
            client.submit(prompt)
        except PromptRejected:
            return client
        raise AssertionError("a malformed prompt was taken")
    if kind == "interrupted":
        slow = PromptGraph()
        patched = patch("SafetySteeringDev_Fail", fail_at_call=0, seconds_per_call=0.1)
        save_latent(slow, FAMILIES["wan"].graph(slow, patched, seed=number, steps=20).samples, "slow")
        prompt = slow.prompt
    prompt_id = client.submit(prompt)
    if kind == "interrupted":
        client.wait_for(prompt_id, "progress", timeout=900)
        time.sleep(chance.random())
        client.request("/interrupt", {"prompt_id": prompt_id})
    if kind == "hung up":
        client.close()
        follower = connect(server)
        follower._node_errors[prompt_id] = {}
        client = follower
    run = client.result(prompt_id, timeout=900)
    with tally.lock:
        tally.runs[prompt_id] = (prompt, run)
    return client


def soak(server: GuardedServer, jobs: int, clients: int, seed: int) -> dict[str, Any]:
    """The first part; returns its row."""
    policies = {server.status()["policy"]["sha256"]: STRENGTHS[0]}
    tally, begun = Tally(), time.monotonic()
    threads = [threading.Thread(target=work, args=(server, tally, jobs, seed + n)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for number, strength in enumerate(STRENGTHS[1:], start=1):
        while tally.ended < number * jobs // len(STRENGTHS) and any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
        server.set_policy((PolicyRule(strength=strength),))
        policies[server.status()["policy"]["sha256"]] = strength
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    decisions, steered, signed = Counter(), 0, 0
    delivered = []
    for prompt, run in tally.runs.values():
        record = server.record_of(run)
        decisions[record["decision"]] += 1
        if record["decision"] != "delivered":
            continue
        delivered.append((prompt, run, record))
        wanted = policies[record["policy_sha256"]] * GAP
        steered += record["verdict"] == "steered" and all(abs(shift - wanted) < 0.01 for shift in moved(record))
        signed += all(verified(server, path) for path in server.output_files(run))
    first = min(WARM, max(tally.memory))
    growth = tally.memory[max(tally.memory)] / tally.memory[first] - 1
    same = rerun(server, random.Random(seed).sample(delivered, min(RERUN, len(delivered))), policies)
    row = {
        "setting": "soak",
        "jobs": jobs,
        "clients": clients,
        "policy_changes": len(STRENGTHS) - 1,
        "kinds": dict(tally.kinds),
        "decisions": dict(decisions),
        "delivered": len(delivered),
        "steered_by_their_policy": steered,
        "signatures_good": signed,
        "rerun_alone": same[1],
        "rerun_bit_identical": same[0],
        "memory_growth": growth,
        "memory_from_job": first,
        "memory_mb": tally.memory[max(tally.memory)] / 2**20,
        "unhandled": unhandled(server) + tally.complaints,
        "seconds": seconds,
    }
    whole = len(delivered)
    row["met"] = (
        whole > 0 and steered == signed == whole and same[0] == same[1] > 0 and not row["unhandled"]
    ) and growth < MOST_GROWTH
    return row


def verified(server: GuardedServer, path: Path) -> bool:
    try:
        verify_file(path, [server.status()["public_key"]])
    except ValueError:
        return False
    return True


def rerun(
    server: GuardedServer, chosen: list[tuple[dict[str, Any], Run, dict[str, Any]]], policies: dict[str, float]
) -> tuple[int, int]:
    """How many of these jobs give the same bits when they run alone, on models that are loaded anew."""
    same = 0
    for prompt, run, record in chosen:
        server.set_policy((PolicyRule(strength=policies[record["policy_sha256"]]),))
        server.client.free()
        again = server.client.run(prompt).succeeded()
        (saved,) = run.outputs
        same += torch.equal(load_latent(server, run, saved), load_latent(server, again, saved))
    return same, len(chosen)


def unhandled(server: GuardedServer) -> list[str]:
    """Lines of the server's log that tell of something nobody has caught."""
    return [line for line in server.log().splitlines() if any(words in line for words in UNHANDLED)][:10]


def queue(server: GuardedServer, queued: int, rewrites: int) -> dict[str, Any]:
    """The second part: queued jobs while the policy is rewritten; returns its row."""
    strengths: dict[str, float] = {}
    begun = time.monotonic()
    prompts: list[str] = []

    def rewrite() -> None:
        done = 0
        while done < rewrites:
            strength = 1.0 + done % 5
            server.set_policy((PolicyRule(strength=strength),))
            strengths[server.status()["policy"]["sha256"]] = strength
            done += 1
            time.sleep(0.5)

    writer = threading.Thread(target=rewrite)
    writer.start()
    prompts = [server.client.submit(graph_of(10_000 + seed, 2)) for seed in range(queued)]
    runs = [server.client.result(prompt_id, timeout=1800) for prompt_id in prompts]
    writer.join()
    records = [server.record_of(run) for run in runs]
    by_policy = sum(
        record["decision"] == "delivered"
        and all(abs(shift - strengths[record["policy_sha256"]] * GAP) < 0.01 for shift in moved(record))
        for record in records
    )
    return {
        "setting": "queue",
        "jobs": queued,
        "rewrites": rewrites,
        "policies_met": len({record["policy_sha256"] for record in records}),
        "steered_by_their_policy": by_policy,
        "unhandled": unhandled(server),
        "seconds": time.monotonic() - begun,
        "met": by_policy == queued,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Many clients at once on a guarded server.")
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--queued", type=int, default=200)
    parser.add_argument("--rewrites", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    asked = parser.parse_args()
    table: dict[str, Any] = {
        "command": f"bench/soak.py --jobs {asked.jobs} --clients {asked.clients} --queued {asked.queued} "
        f"--rewrites {asked.rewrites} --seed {asked.seed}",
        "commit": commit(),
        "seeds": [asked.seed],
        "rows": [],
    }
    asked.result.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="safety-steering-soak-") as folder:
        playground.prepare(Path(folder))
        with GuardedServer(Path(folder), (PolicyRule(strength=STRENGTHS[0]),)) as server:
            for part in (
                lambda: soak(server, asked.jobs, asked.clients, asked.seed),
                lambda: queue(server, asked.queued, asked.rewrites),
            ):
                table["rows"].append(part())
                print(json.dumps(table["rows"][-1], indent=1), flush=True)
                asked.result.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["met"] for row in table["rows"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
