"""300 random graphs of ComfyUI's own nodes on a guarded server: each file is signed with the verdict that this test
computes by itself from the graph, or does not exist.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from attack_graphs import WAN, their_latent, their_picture
from guarded import PolicyRule
from safety_steering_pack.commands.api_graph import Link, PromptGraph
from safety_steering_pack.guardrail.evidence import verify_file
from tiny.graphs import save_latent
from tiny.models import TINY_MODELS

GRAPHS, SEED = 300, 19
SAVED = ("SaveImage", "SaveLatent")


@dataclass(frozen=True)
class Made:
    """What this test knows of a value: whether a run made it, whether the client's is in it, past runs or within."""

    link: Link
    sampled: bool = False
    other: bool = False
    led: bool = False

    def with_link(self, link: Link) -> Made:
        return Made(link, self.sampled, self.other, self.led)

    def joined(self, link: Link, more: Made) -> Made:
        return Made(link, self.sampled or more.sampled, self.other or more.other, self.led or more.led)

    @property
    def verdict(self) -> str:
        if not self.sampled:
            return "not sampled here"
        if self.other:
            return "contains other content"
        return "steered from client content" if self.led else "steered"


class RandomGraph:
    """One graph; `expected`: saving node -> the verdict that its files must have."""

    def __init__(self, guarded, chance: random.Random) -> None:
        self.graph, self.chance = PromptGraph(), chance
        self.expected: dict[str, str] = {}
        first = WAN.graph(self.graph, steps=1, length=1, seed=chance.randrange(4))
        settings = self.graph.prompt[first.samples[0]]["inputs"]
        self.settings = {name: settings[name] for name in ("model", "positive", "negative")}
        self.vae = self.graph.add("VAELoader", vae_name=TINY_MODELS["wan_vae"].file_name)[0]
        self.latents = [Made(first.samples, sampled=True)]
        self.images: list[Made] = []
        if chance.random() < 0.5:
            self.latents.append(Made(their_latent(guarded, self.graph), other=True))
        if chance.random() < 0.5:
            self.images.append(Made(their_picture(guarded, self.graph), other=True))
        for _ in range(chance.randint(1, 7)):
            self.grow()
        for _ in range(chance.randint(1, 2)):
            self.save()

    def pick(self, among: list[Made]) -> Made:
        return self.chance.choice(among)

    def grow(self) -> None:
        """Add one node."""
        add, latent = self.graph.add, self.pick(self.latents)
        step = self.chance.choice(
            ("sample", "sample", "add", "scale", "decode", "decode", "encode", "blend", "batch", "invert")
        )
        if step == "sample":
            settings = {"seed": self.chance.randrange(4), "steps": 1, "cfg": 1.0, "sampler_name": "euler"}
            settings |= {"scheduler": "simple", "denoise": self.chance.choice((0.3, 1.0))}
            link = add("KSampler", settings | self.settings, latent_image=latent.link)[0]
            self.latents.append(Made(link, sampled=True, led=latent.other or latent.led))
        elif step == "add":
            more = self.pick(self.latents)
            link = add("LatentAdd", samples1=latent.link, samples2=more.link)[0]
            self.latents.append(latent.joined(link, more))
        elif step == "scale":
            self.latents.append(latent.with_link(add("LatentMultiply", samples=latent.link, multiplier=0.7)[0]))
        elif step == "decode" or not self.images:
            self.images.append(latent.with_link(add("VAEDecode", samples=latent.link, vae=self.vae)[0]))
        else:
            self.grow_image(step, self.pick(self.images))

    def grow_image(self, step: str, image: Made) -> None:
        add, more = self.graph.add, self.pick(self.images)
        if step == "encode":
            self.latents.append(image.with_link(add("VAEEncode", pixels=image.link, vae=self.vae)[0]))
        elif step == "blend":
            settings = {"blend_factor": self.chance.choice((0.0, 0.5, 1.0)), "blend_mode": "normal"}
            link = add("ImageBlend", settings, image1=image.link, image2=more.link)[0]
            self.images.append(image.joined(link, more))
        elif step == "batch":
            both = add("ImageBatch", image1=image.link, image2=more.link)[0]
            link = add("ImageFromBatch", image=both, batch_index=self.chance.randrange(2), length=1)[0]
            self.images.append(image.joined(link, more))
        else:
            self.images.append(image.with_link(add("ImageInvert", image=image.link)[0]))

    def save(self) -> None:
        """Save or preview a value that was made."""
        what = self.chance.choice(("latent", "image", "preview")) if self.images else "latent"
        made = self.pick((self.latents if what == "latent" else self.images)[-3:])
        if what == "latent":
            node = save_latent(self.graph, made.link, "random")
        elif what == "image":
            node = self.graph.add("SaveImage", images=made.link, filename_prefix="random")
        else:
            node = self.graph.add("PreviewImage", images=made.link)
        self.expected[node.id] = made.verdict


def test_random_graphs(guarded):
    guarded.set_policy((PolicyRule(),))
    served = ("steered", "steered from client content")
    key = guarded.status()["public_key"]
    graphs = [RandomGraph(guarded, random.Random(SEED * 1000 + number)) for number in range(GRAPHS)]
    sent = [(graph, guarded.client.submit(graph.graph.prompt)) for graph in graphs]
    runs = [(graph, guarded.client.result(prompt_id, timeout=900)) for graph, prompt_id in sent]
    records = {record["prompt_id"]: record for record in guarded.audit}
    met: Counter[str] = Counter()
    for graph, run in runs:
        record = records[run.prompt_id]
        kinds = {node: graph.graph.prompt[node]["class_type"] for node in graph.expected}
        refused = any(kinds[node] in SAVED and verdict not in served for node, verdict in graph.expected.items())
        shown = any(verdict in served for verdict in graph.expected.values())
        assert record["decision"] == ("refused" if refused or not shown else "delivered"), graph.graph.prompt
        met[record["decision"]] += 1
        for node, verdict in graph.expected.items():
            entries = run.outputs.get(node, {})
            files = [guarded.output_file(entry) for entry in entries.get("images", entries.get("latents", ()))]
            assert bool(files) == (record["decision"] == "delivered" and verdict in served), (node, verdict)
            for file in files:
                assert verify_file(file, [key])["verdict"] == verdict
                met[verdict] += 1
    assert met["delivered"] > GRAPHS / 4
    assert met["refused"] > GRAPHS / 10
    assert min(met[verdict] for verdict in served) > GRAPHS / 30
    for file in (guarded.base_directory / "output").rglob("random*"):
        assert file.name.endswith(".safety.json") or verify_file(file, [key])["verdict"] in served


@pytest.mark.parametrize("number", range(3))
def test_the_same_seed_gives_the_same_graph(guarded, number):
    one, two = (RandomGraph(guarded, random.Random(number)) for _ in range(2))
    assert one.graph.prompt == two.graph.prompt
