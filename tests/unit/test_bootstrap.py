"""The set-up script, on machines of our own making: fake pythons, fake apt, no network."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "jobs" / "bootstrap.py"


class Became(Exception):
    """What the script would have turned into."""


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module whose repository is an empty directory; it becomes no other program."""
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "stamp.json")
    for name in ("PATH", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def become(file: str, words: list[str]) -> None:
        raise Became(file, words, os.environ["PATH"].split(os.pathsep)[0], os.getcwd())

    monkeypatch.setattr(module.os, "execvp", become)
    return module


class Machine:
    """Stands in for subprocess.run: remembers the commands, makes the files they would make, fails those it is told."""

    def __init__(self, venv: Path) -> None:
        self.venv, self.ran, self.fail_on = venv, [], ""

    def __call__(self, command: list[Any], **_: Any) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        self.ran.append(words)
        failed = bool(self.fail_on) and self.fail_on in words
        if "venv" in words and not failed:
            shutil.rmtree(self.venv, ignore_errors=True)
            (self.venv / "bin").mkdir(parents=True)
            for name in ("python", "pytest", "spark-rl", "ruff"):
                (self.venv / "bin" / name).write_text("#!/bin/sh\n")
                (self.venv / "bin" / name).chmod(0o755)
        return subprocess.CompletedProcess(words, int(failed))

    def did(self, word: str) -> list[list[str]]:
        return [words for words in self.ran if word in words]


@pytest.fixture
def machine(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(bootstrap.VENV)
    monkeypatch.setattr(bootstrap.subprocess, "run", made)
    monkeypatch.setattr(bootstrap, "ensure_java", lambda: None)
    return made


def run(bootstrap: ModuleType, *words: str) -> tuple[Any, ...]:
    with pytest.raises(Became) as became:
        bootstrap.main(list(words))
    return became.value.args


def exit_line(bootstrap: ModuleType, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The last line of a refusal, after checking that it is exit code 2."""
    with pytest.raises(SystemExit) as ended:
        bootstrap.main(list(words))
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def extras_of(machine: Machine) -> str:
    return machine.did("--editable")[-1][-1].partition("[")[2].rstrip("]")


# ---- the environment ----


def test_first_time_makes_everything_and_becomes_the_command(bootstrap: ModuleType, machine: Machine) -> None:
    became = run(bootstrap, "pytest", "-q", "--extras")
    assert became[:3] == ("pytest", ["pytest", "-q", "--extras"], str(bootstrap.VENV / "bin"))
    assert machine.ran[0] == [sys.executable, "-m", "venv", "--clear", str(bootstrap.VENV)]
    assert extras_of(machine) == "test"


def test_second_time_only_looks(bootstrap: ModuleType, machine: Machine) -> None:
    run(bootstrap, "pytest")
    machine.ran.clear()
    run(bootstrap, "pytest")
    assert machine.ran == []


def test_another_command_adds_its_extras(bootstrap: ModuleType, machine: Machine) -> None:
    run(bootstrap, "pytest")
    run(bootstrap, "spark-rl", "train", "x.toml")
    assert extras_of(machine) == "box2d,test"
    run(bootstrap, "--extras", "atari,mujoco", "spark-rl", "train", "x.toml")
    assert extras_of(machine) == "atari,box2d,mujoco,test"
    assert len(machine.did("venv")) == 1


def test_a_changed_pyproject_is_installed_again(bootstrap: ModuleType, machine: Machine) -> None:
    run(bootstrap, "pytest")
    (bootstrap.ROOT / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    run(bootstrap, "pytest")
    assert len(machine.did("--editable")) == 2
    assert len(machine.did("venv")) == 1


@pytest.mark.parametrize("key", ["python", "root"])
def test_another_python_or_a_moved_clone_starts_anew(bootstrap: ModuleType, machine: Machine, key: str) -> None:
    run(bootstrap, "pytest")
    stamp = json.loads(bootstrap.STAMP.read_text())
    bootstrap.STAMP.write_text(json.dumps(stamp | {key: "other"}))
    run(bootstrap, "pytest")
    assert len(machine.did("venv")) == 2


def test_an_installation_that_failed_is_done_again(
    bootstrap: ModuleType, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fail_on = "--editable"
    assert "bootstrap: pip: got an error (above); wanted" in exit_line(bootstrap, capsys, "pytest")
    machine.fail_on = ""
    run(bootstrap, "pytest")
    assert len(machine.did("--editable")) == 2


def test_tools_run_in_the_repository_and_spark_rl_where_the_user_is(
    bootstrap: ModuleType, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run(bootstrap, "spark-rl", "train", "x.toml")[3] == str(elsewhere)
    assert run(bootstrap, "pytest")[3] == str(bootstrap.ROOT)


def test_a_command_that_does_not_exist(
    bootstrap: ModuleType, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "got 'pytset'; wanted a command" in exit_line(bootstrap, capsys, "pytset")


def test_an_old_python(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 10, 4))
    assert "wanted Python 3.11 or newer" in exit_line(bootstrap, capsys, "pytest")


@pytest.mark.parametrize("root", [True, False])
def test_a_python_without_venv(
    bootstrap: ModuleType,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    root: bool,
) -> None:
    package = f"python3.{sys.version_info.minor}-venv"
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None)
    as_user(bootstrap, monkeypatch, root=root, apt=True)
    if root:
        run(bootstrap, "pytest")
        assert machine.did("install")[0][-1] == package
    else:
        assert exit_line(bootstrap, capsys, "pytest").endswith(
            f"wanted a Python that makes environments; install {package}"
        )


# ---- Java ----


def as_user(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, *, root: bool, apt: bool) -> None:
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 0 if root else 1000)
    which = shutil.which
    monkeypatch.setattr(
        bootstrap.shutil, "which", lambda name: ("/apt" if apt else None) if name == "apt-get" else which(name)
    )


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """A machine without Java; the result, once called, gives it one."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def appear() -> None:
        (programs / "java").write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n")
        (programs / "java").chmod(0o755)

    return appear


@pytest.mark.parametrize(("root", "apt"), [(False, True), (True, False)])
def test_no_java_and_no_way_to_install_it_is_one_line(
    bootstrap: ModuleType,
    no_java: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    root: bool,
    apt: bool,
) -> None:
    as_user(bootstrap, monkeypatch, root=root, apt=apt)
    with pytest.raises(SystemExit) as ended:
        bootstrap.main(["pytest"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bootstrap: java: got none in JAVA_HOME and PATH; wanted Java 17 or newer; install one: ")


@pytest.mark.parametrize("has_17", [True, False])
def test_root_on_debian_installs_java(
    bootstrap: ModuleType, no_java: Callable[[], None], monkeypatch: pytest.MonkeyPatch, has_17: bool
) -> None:
    as_user(bootstrap, monkeypatch, root=True, apt=True)
    ran: list[list[str]] = []
    real_run = subprocess.run

    def apt(command: list[Any], **options: Any) -> Any:
        if command[0] != "apt-get":
            return real_run(command, **options)
        ran.append(command)
        known = "update" in command or has_17 or "17" not in command[-1]
        if "install" in command and known:
            no_java()
        return subprocess.CompletedProcess(command, 0 if known else 100)

    monkeypatch.setattr(bootstrap.subprocess, "run", apt)
    bootstrap.ensure_java()
    installs = [command[-1] for command in ran if "install" in command]
    assert installs == ["openjdk-17-jre-headless"] + ([] if has_17 else ["openjdk-21-jre-headless"])
    assert ran[0] == ["apt-get", "update", "-qq"]


def test_java_that_is_there_is_left_alone(
    bootstrap: ModuleType, no_java: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_java()
    monkeypatch.setattr(bootstrap, "apt_install", lambda package: pytest.fail("nothing to install"))
    bootstrap.ensure_java()


@pytest.mark.parametrize("tool", ["ruff", "mypy"])
def test_tools_that_start_no_spark_need_no_java(
    bootstrap: ModuleType, machine: Machine, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setattr(bootstrap, "ensure_java", lambda: pytest.fail("asked for Java"))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/{name}")
    assert run(bootstrap, tool, "check")[1] == [tool, "check"]


def test_the_script_imports_nothing_that_must_be_installed() -> None:
    """Under -I -S there is no site-packages: only the standard library and the repository are left."""
    code = f"import runpy, sys; sys.argv = ['b', '--help']; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "COMMAND" in done.stdout.upper()
    java = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import spark_rl.spark.java"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", java], check=False).returncode == 0
