"""The layers of the pack, and how large its folders and modules may be. grimp reads the imports."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pack
import pytest
from comfy_tree import comfyui_path

REPO_ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("nodes", "commands", "bridge", "guardrail", "safety_steering")
SCRIPTS = ("demo", "bench", "tools")
LAYERS = (grimp.Layer("nodes", "commands"), "bridge", "guardrail", "safety_steering")
MODULES_A_FOLDER = 16
LINES_A_MODULE = 350
# start.py prepares a script, comfy_tree.py finds ComfyUI; the node pack below plays an operator's, which does this.
MAY_EDIT_PATH = {"tools/start.py", "tools/comfy_tree.py", "tests/helpers/hostile_nodes/__init__.py"}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Every import of the pack, those under TYPE_CHECKING and inside functions too."""
    pack.register()
    return grimp.build_graph(pack.NAME, include_external_packages=True, cache_dir=None)


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((REPO_ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(REPO_ROOT).as_posix()


def test_every_module_is_in_the_graph(imports):
    files = {relative(path).removesuffix(".py").removesuffix("/__init__") for path in python_files(*PRODUCT)}
    names = {name.partition(".")[2].replace(".", "/") for name in imports.find_descendants(pack.NAME)}
    assert names == files


def test_layers_import_downwards_only(imports):
    broken = imports.find_illegal_dependencies_for_layers(layers=LAYERS, containers={pack.NAME})
    routes = [f"{route.heads} -> {route.tails}" for dependency in broken for route in dependency.routes]
    assert routes == []


def test_no_circle_of_imports(imports):
    modules = {pack.NAME, *imports.find_descendants(pack.NAME)}
    graph = {name: imports.find_modules_directly_imported_by(name) & modules for name in modules}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize("package", ["safety_steering", "guardrail"])
def test_it_imports_no_comfyui(imports, package):
    comfyui = {path.stem for path in comfyui_path().iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert {"comfy", "folder_paths", "nodes"} <= comfyui
    name = f"{pack.NAME}.{package}"
    for module in {name, *imports.find_descendants(name)}:
        assert not imports.find_modules_directly_imported_by(module) & comfyui, module


def test_no_folder_has_too_many_modules():
    counts: dict[str, int] = {}
    for path in python_files(*PRODUCT):
        if path.name != "__init__.py":
            folder = relative(path.parent)
            counts[folder] = counts.get(folder, 0) + 1
    assert counts["guardrail"] > 1
    assert {folder: count for folder, count in counts.items() if count > MODULES_A_FOLDER} == {}


def test_no_module_is_too_long():
    lines = {relative(path): len(path.read_bytes().splitlines()) for path in python_files(*PRODUCT, *SCRIPTS)}
    assert {name: count for name, count in lines.items() if count > LINES_A_MODULE} == {}


def test_scripts_are_started_by_start_py():
    editors = {relative(path) for path in python_files(*PRODUCT, *SCRIPTS, "tests") if edits_sys_path(path.read_text())}
    assert editors == MAY_EDIT_PATH


def edits_sys_path(source: str) -> bool:
    """Whether code assigns to `sys.path` or calls one of its methods; text in strings does not count."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_sys_path(node.value):
            return True
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if is_sys_path(target.value if isinstance(target, ast.Subscript) else target):
                return True
    return False


def is_sys_path(node: ast.AST | None) -> bool:
    return node is not None and ast.unparse(node) == "sys.path"


@pytest.mark.parametrize(
    ("source", "edits"),
    [
        ("import sys\nsys.path.insert(0, 'x')", True),
        ("import sys\nsys.path += ['x']", True),
        ("import sys\nsys.path[:0] = ['x']", True),
        ("import sys\nprint(sys.path)\nCODE = 'sys.path.append(1)'", False),
    ],
)
def test_an_edit_of_the_path_is_seen(source, edits):
    assert edits_sys_path(source) is edits


def test_a_test_runner_collects_files_of_tests_only():
    outside = [path for path in [*REPO_ROOT.glob("*.py"), *python_files(*PRODUCT, *SCRIPTS)] if is_collected(path.name)]
    assert outside == []
    assert is_collected(Path(__file__).name)


def is_collected(name: str) -> bool:
    """Whether pytest's default patterns match the file."""
    return name.startswith("test_") or name.endswith("_test.py")
