"""What holds for every source file: imports point one way, kernels are where their cache looks."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from devices.memory.jit import is_kernel_source
from emulator.config.scenario import ROOT

# A package may import itself and those of lower rank; equal ranks must not import each other.
RANKS = {
    "devices.memory": 0,
    "devices.virtio": 1,
    "devices.kvm": 2,
    "devices.balloon": 2,
    "devices.vhost_user": 2,
    "emulator.errors": 3,
    "emulator.config": 3,
    "emulator.guest": 4,
    "emulator.host": 4,
    "emulator.workloads": 5,
    "emulator.traces": 4,
    "emulator": 6,
    "tests": 7,
}
SHARED = {("emulator.config", "emulator.errors")}  # Both of the same rank: allowed pairs.
FORBIDDEN_NAMES = {"utils", "helpers", "common", "util", "misc"}
LINES_MAX, TEST_LINES_MAX, FUNCTION_LINES_MAX = 400, 500, 70
SOURCES = sorted(
    p for folder in ("devices", "emulator", "tests") for p in (ROOT / folder).rglob("*.py")
)
PRODUCT = [path for path in SOURCES if path.relative_to(ROOT).parts[0] != "tests"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def package_of(module: str) -> str:
    """The ranked package that a module belongs to."""
    found = [p for p in RANKS if module == p or module.startswith(p + ".")]
    return max(found, key=len, default="")


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    mine = package_of(name_of(path).removesuffix(".py").replace("/", "."))
    for module in imports_of(path):
        other = package_of(module)
        if not other or other == mine or (mine, other) in SHARED:
            continue
        assert RANKS[other] < RANKS[mine], f"{mine} must not import {module}"


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_kernels_are_where_the_cache_looks(path: Path) -> None:
    decorated = re.search(r"^@kernel\b", path.read_text(), re.MULTILINE)
    assert not decorated or is_kernel_source(path)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_what_it_is_and_fits_a_sitting(path: Path) -> None:
    text = path.read_text()
    documented = path not in PRODUCT or ast.get_docstring(tree_of(path)) is not None
    assert documented or not text.strip()
    assert text.count("\n") <= (LINES_MAX if path in PRODUCT else TEST_LINES_MAX)
    assert path.stem not in FORBIDDEN_NAMES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, node.name


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_what_is_public_is_documented(path: Path) -> None:
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            overloaded = any(
                isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list
            )
            documented = node.name.startswith("_") or ast.get_docstring(node) or overloaded
            inline = "inline=True" in " ".join(ast.unparse(d) for d in node.decorator_list)
            assert documented or inline, node.name


def test_nothing_names_this_machine() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    own = Path(__file__).relative_to(ROOT)
    places = re.compile("/" + r"(work|farm|root)/|https?://\S*/" + "simple|index-" + "url")
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".sh"} and path.exists() and name != str(own):
            found = places.search(path.read_text())
            assert found is None, f"{name}: {found and found.group()}"
