"""Who may import whom (the rooms of the design): read from the source with ast, then once more by importing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import spark_rl

SOURCE = Path(spark_rl.__file__).parent

# Rooms are named below the package: "losses" is the package spark_rl.losses with all its modules.
GROUND = ["errors"]  # what even the rooms that import nothing may use
PURE = ["losses", "schema", "seeding", "registry", "metrics"]
EXECUTOR_SIDE = ["spark.executor", "rollout", "envs", "policies", "schema", "seeding"]
NEVER_ON_EXECUTORS = ["config", "config_input", "learner", "checkpoint", "algorithms", "train", "cli", "spark.driver"]
LEARNER_SIDE = ["learner", "algorithms", "losses", "policies", "data", "checkpoint"]
MAY_NAME_PYSPARK = ["spark", "sql", "parallel"]
# What a worker that only steps an MLP imports. torch: 3.3 s and 180 MB a worker; pydantic: only the config needs it.
MLP_ROLLOUT = ["rollout", "policies.acting", "envs", "schema", "seeding"]


class Package:
    """The import graph of a package on disk; module names are full, `TYPE_CHECKING` blocks do not count."""

    def __init__(self, root: Path) -> None:
        self.name = root.name
        self.modules: dict[str, ast.Module] = {}
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[name] = ast.parse(path.read_text(), str(path))

    def room(self, *rooms: str) -> set[str]:
        """The modules of these rooms; a room that no file belongs to is an error of the test."""
        found = {room: {m for m in self.modules if f"{m}.".startswith(f"{self.name}.{room}.")} for room in rooms}
        missing = [room for room, members in found.items() if not members]
        assert not missing, f"no such rooms: {missing}"
        return set().union(*found.values())

    def imports(self, module: str, *, lazy: bool) -> set[str]:
        """Full names that a module imports, ours resolved to modules; `lazy` adds the imports inside functions."""
        names = set()
        for node in _walk(self.modules[module], lazy):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = module.split(".")
                    if not self._is_package(module):
                        parents = parents[:-1]
                    parents = parents[: len(parents) - node.level + 1]
                    base = ".".join([*parents, *([base] if base else [])])
                names |= {f"{base}.{a.name}" if f"{base}.{a.name}" in self.modules else base for a in node.names}
        return names - {module}

    def ours(self, module: str, *, lazy: bool) -> set[str]:
        return self.imports(module, lazy=lazy) & self.modules.keys()

    def outside(self, module: str, *, lazy: bool) -> set[str]:
        """Top names of other packages: "torch" for torch.nn."""
        return {name.split(".")[0] for name in self.imports(module, lazy=lazy)} - {self.name}

    def reach(self, start: Iterable[str], *, lazy: bool) -> set[str]:
        """Every module of ours that gets imported with these: transitively, with the packages they lie in."""
        seen: set[str] = set()
        waiting = list(start)
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                parents = {module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1)}
                waiting += self.ours(module, lazy=lazy) | parents
        return seen

    def cycle(self, *, lazy: bool) -> list[str]:
        """Some chain of imports that ends where it began, or nothing. A lazy import within one room makes no cycle."""
        done: set[str] = set()

        def visit(module: str, path: list[str]) -> list[str]:
            if module in path:
                return [*path[path.index(module) :], module]
            if module in done:
                return []
            elsewhere = {m for m in self.ours(module, lazy=lazy) if _room(m) != _room(module)}
            for following in sorted(self.ours(module, lazy=False) | elsewhere):
                if found := visit(following, [*path, module]):
                    return found
            done.add(module)
            return []

        return next((found for module in sorted(self.modules) if (found := visit(module, []))), [])

    def _is_package(self, module: str) -> bool:
        return any(other.startswith(f"{module}.") for other in self.modules)


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _walk(node: ast.AST, lazy: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (inner for other in child.orelse for inner in ast.walk(other))
        elif lazy or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _walk(child, lazy)


@pytest.fixture(scope="module")
def package() -> Package:
    return Package(SOURCE)


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_import_nothing_of_ours(package: Package, room: str) -> None:
    allowed = package.room(room) | package.room(*GROUND)
    used = {(m, name) for m in package.room(room) for name in package.ours(m, lazy=True) if name not in allowed}
    assert not used


@pytest.mark.parametrize("room", EXECUTOR_SIDE)
def test_executors_never_reach_the_learner_or_the_config(package: Package, room: str) -> None:
    forbidden = package.room(*NEVER_ON_EXECUTORS)
    assert not package.reach(package.room(room), lazy=True) & forbidden


@pytest.mark.parametrize("room", LEARNER_SIDE)
def test_the_learner_side_never_reaches_pyspark(package: Package, room: str) -> None:
    reached = package.reach(package.room(room), lazy=True)
    assert not {module for module in reached if {"pyspark", "py4j"} & package.outside(module, lazy=True)}


def test_only_three_rooms_name_pyspark(package: Package) -> None:
    naming = {m for m in package.modules if {"pyspark", "py4j"} & package.outside(m, lazy=True)}
    rooms = {module.split(".")[1] for module in naming}
    assert rooms <= set(MAY_NAME_PYSPARK), naming


@pytest.mark.parametrize("room", MLP_ROLLOUT)
def test_an_mlp_rollout_imports_neither_torch_nor_pydantic_nor_pyspark(package: Package, room: str) -> None:
    start = {m for m in package.room(room) if not m.endswith("_torch")}
    reached = package.reach(start, lazy=False)
    heavy = {(m, name) for m in reached for name in package.outside(m, lazy=False) & {"torch", "pydantic", "pyspark"}}
    assert not heavy


def test_there_is_no_import_cycle(package: Package) -> None:
    assert package.cycle(lazy=False) == []


def test_rooms_do_not_knit_a_cycle_with_lazy_imports_either(package: Package) -> None:
    assert package.cycle(lazy=True) == []


# ---- the same, by really importing ----


def loaded_after(code: str) -> set[str]:
    """Top names of what a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint('LOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


def test_importing_the_package_costs_nothing() -> None:
    assert not loaded_after("import spark_rl") & {"torch", "pyspark", "pydantic", "numpy", "pyarrow", "gymnasium"}


def test_a_worker_that_steps_an_mlp_loads_no_torch(package: Package) -> None:
    rooms = sorted(package.room("rollout") | {"spark_rl.policies.acting"})
    loaded = loaded_after("\n".join(f"import {module}" for module in rooms))
    assert "numpy" in loaded
    assert not loaded & {"torch", "pydantic", "pyspark"}


def test_the_learner_works_where_pyspark_is_not_installed() -> None:
    block = "import sys\nsys.modules['pyspark'] = None\nsys.modules['py4j'] = None\n"  # None: an import of it raises
    assert "torch" in loaded_after(f"{block}import spark_rl.algorithms.ppo\nimport spark_rl.learner")


def test_every_lazy_name_of_the_package_exists() -> None:
    for name in spark_rl._HOME:
        assert getattr(spark_rl, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'; it has: RunConfig"):
        _ = spark_rl.nonsense


# ---- the reader of imports sees what it should: planted cases ----


@pytest.fixture
def planted(tmp_path: Path) -> Package:
    files = {
        "toy/__init__.py": "",
        "toy/a.py": "def f():\n    from toy.b import thing\n",
        "toy/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas\nelse:\n    import json\n",
        "toy/room/__init__.py": "from . import inner\n",
        "toy/room/inner.py": "import torch.nn\nfrom .. import a\nfrom .other import x\n",
        "toy/room/other.py": "try:\n    import numpy\nexcept ImportError:\n    x = 1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Package(tmp_path / "toy")


def test_reader_tells_lazy_from_top_level(planted: Package) -> None:
    assert planted.ours("toy.a", lazy=False) == set()
    assert planted.ours("toy.a", lazy=True) == {"toy.b"}


def test_reader_resolves_relative_imports_and_nested_statements(planted: Package) -> None:
    assert planted.imports("toy.room.inner", lazy=False) == {"torch.nn", "toy.a", "toy.room.other"}
    assert planted.outside("toy.room.inner", lazy=False) == {"torch"}
    assert planted.outside("toy.room.other", lazy=False) == {"numpy"}


def test_reader_leaves_out_what_only_a_type_checker_imports(planted: Package) -> None:
    assert planted.outside("toy.b", lazy=True) == {"typing", "json"}


def test_reach_goes_through_packages(planted: Package) -> None:
    assert "toy.room.inner" in planted.reach({"toy.room.other"}, lazy=False)  # the package's __init__ imports it
    assert "toy.b" in planted.reach({"toy.room.inner"}, lazy=True)
    assert "toy.b" not in planted.reach({"toy.room.inner"}, lazy=False)


def test_a_cycle_is_found(planted: Package) -> None:
    assert planted.cycle(lazy=True) == []
    planted.modules["toy.b"] = ast.parse("def g():\n    import toy.a\n")
    assert set(planted.cycle(lazy=True)) == {"toy.a", "toy.b"}
    assert planted.cycle(lazy=False) == []
    planted.modules["toy.room.other"] = ast.parse("def g():\n    import toy.room.inner\n")
    planted.modules["toy.b"] = ast.parse("")
    assert planted.cycle(lazy=True) == []  # one room's own affair
    planted.modules["toy.room.other"] = ast.parse("import toy.room.inner\n")
    assert set(planted.cycle(lazy=False)) == {"toy.room.inner", "toy.room.other"}


def test_a_room_that_does_not_exist_is_no_success(planted: Package) -> None:
    with pytest.raises(AssertionError, match="no such rooms"):
        planted.room("room", "elsewhere")
