"""The examples in the docstrings of the package's verbs, run as a researcher runs them: `import safety_steering`."""

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
import doctest, json, sys
import safety_steering
assert "torch" not in sys.modules, "importing the package costs something"
assert set(safety_steering.__all__) == set(safety_steering._HOME) == set(dir(safety_steering))
import torch
results = {}
for name in safety_steering.__all__:
    torch.manual_seed(0)
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(safety_steering, name), name, globs={})
    said = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    results[name] = {"tried": tried, "complaint": "".join(said) if failed else ""}
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> dict[str, dict[str, object]]:
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
def test_the_example_runs(examples, name):
    assert examples[name]["tried"]
    assert not examples[name]["complaint"], examples[name]["complaint"]
