"""Finding the Java runtime that Spark runs on. Standard library only: the set-up uses it before any installation."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from spark_rl.errors import UserError

MINIMUM = 17  # Spark 4 is compiled for it

HOW_TO_GET = (
    "install one: apt-get install openjdk-17-jre-headless (Debian, Ubuntu) | "
    "dnf install java-17-openjdk-headless (RHEL) | brew install openjdk@17 and set JAVA_HOME to it (macOS) | "
    "conda install -c conda-forge openjdk=17 (conda)"
)


class Java(NamedTuple):
    place: str  # "JAVA_HOME" or "PATH"
    executable: Path
    version: int  # feature release: 17 of 17.0.15, 8 of 1.8.0_392


def find() -> Java:
    """The first Java of at least 17 among JAVA_HOME and PATH. Raises UserError that names what was there instead."""
    seen = []
    for place, executable in candidates():
        version = feature_release(executable)
        if version is not None and version >= MINIMUM:
            return Java(place, executable, version)
        seen.append(f"{place} ({executable}: {f'Java {version}' if version else 'does not start'})")
    raise UserError("java", ", ".join(seen) or "none in JAVA_HOME and PATH", f"Java {MINIMUM} or newer", HOW_TO_GET)


def candidates() -> list[tuple[str, Path]]:
    """Where a Java may be, in the order Spark's own launcher looks."""
    home, on_path = os.environ.get("JAVA_HOME"), shutil.which("java")
    found = [("JAVA_HOME", Path(home, "bin", "java"))] if home else []
    return found + ([("PATH", Path(on_path))] if on_path else [])


def feature_release(executable: Path) -> int | None:
    """What `java -version` says; None where it does not start (macOS has a stub that only asks for an installation)."""
    try:
        told = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    return int(match[1]) if match else None
