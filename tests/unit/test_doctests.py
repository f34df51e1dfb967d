"""The examples in docstrings of the package, run as a researcher runs them: `import safety_steering`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_language_models import write_tiny_llama

VERBS = {
    "extract_vector",
    "fit_alignment",
    "fit_vector",
    "intervene",
    "load_vector",
    "save_vector",
    "sharpen",
    "transfer",
}
RUN = """
import doctest, importlib, json, pkgutil, sys
import safety_steering
assert "torch" not in sys.modules, "importing the package costs something"
assert set(safety_steering.__all__) == set(safety_steering._HOME) == set(dir(safety_steering))
import torch
results = {}
for found in pkgutil.walk_packages(safety_steering.__path__, "safety_steering."):
    if found.name.endswith("__main__"):
        continue
    for test in doctest.DocTestFinder().find(importlib.import_module(found.name), globs={}):
        torch.manual_seed(0)
        said = []
        failed, tried = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
        if tried:
            results[test.name] = "".join(said) if failed else ""
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> dict[str, str]:
    """How every example went, in a folder that has what the examples name: the bundled vectors, a language model."""
    folder = tmp_path_factory.mktemp("doctests")
    (folder / "vectors").symlink_to(repo_root / "vectors")
    write_tiny_llama(folder / "SmolLM2-135M")
    ran = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", sorted(VERBS))
def test_the_example_of_a_verb_runs(examples, name):
    (complaint,) = [said for found, said in examples.items() if found.endswith(f".{name}")]
    assert not complaint, complaint


def test_every_other_example_runs(examples):
    assert [complaint for complaint in examples.values() if complaint] == []
