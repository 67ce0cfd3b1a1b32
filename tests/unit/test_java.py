"""Finding Java, with runtimes of our own making."""

from __future__ import annotations

from pathlib import Path

import pytest

from spark_rl.errors import UserError
from spark_rl.spark import java


def fake(directory: Path, says: str, code: int = 0) -> Path:
    """A `java` that answers -version on stderr, as the real ones do."""
    executable = directory / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {code}\n")
    executable.chmod(0o755)
    return executable


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without Java."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    return tmp_path


@pytest.mark.parametrize(
    ("says", "release"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "25-ea" 2025', 25),
        ("The operation could not be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_feature_release(tmp_path: Path, says: str, release: int | None) -> None:
    assert java.feature_release(fake(tmp_path, says)) == release


def test_a_stub_that_fails_is_no_java(tmp_path: Path) -> None:
    assert java.feature_release(fake(tmp_path, 'openjdk version "17.0.1"', code=1)) is None


def test_java_home_comes_before_path(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, other = fake(bare / "home", 'version "21.0.1"'), fake(bare / "other", 'version "17.0.1"')
    monkeypatch.setenv("PATH", str(other.parent))
    assert java.find() == java.Java("PATH", other, 17)
    monkeypatch.setenv("JAVA_HOME", str(home.parent.parent))
    assert java.find() == java.Java("JAVA_HOME", home, 21)


def test_an_old_java_home_is_passed_over(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake(bare / "old", 'version "1.8.0_1"').parent.parent))
    monkeypatch.setenv("PATH", str(fake(bare / "new", 'version "17.0.1"').parent))
    assert java.find().place == "PATH"


def test_no_java_says_how_to_get_one_everywhere(bare: Path) -> None:
    with pytest.raises(UserError) as caught:
        java.find()
    message = str(caught.value)
    assert message.startswith("java: got none in JAVA_HOME and PATH; wanted Java 17 or newer; install one: ")
    assert all(name in message for name in ("Debian", "RHEL", "macOS", "conda"))
    assert "\n" not in message


def test_an_old_java_is_named(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake(bare / "old", 'version "11.0.2"')
    monkeypatch.setenv("JAVA_HOME", str(old.parent.parent))
    with pytest.raises(UserError, match=rf"got JAVA_HOME \({old}: Java 11\); wanted"):
        java.find()


def test_a_java_home_that_points_nowhere_is_named(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(UserError, match=r"JAVA_HOME \(/nowhere/bin/java: does not start\)"):
        java.find()
