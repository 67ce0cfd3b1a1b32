"""From a fresh clone to a running command: python3 jobs/bootstrap.py [--extras A,B] COMMAND [ARGS...]

Makes .venv in the repository, installs the project there (editable) with the extras that COMMAND needs, sees to a Java
runtime, and becomes COMMAND with the environment's programs first on PATH. The second time it only looks. Needs nothing
but Python 3.11 and its standard library; works from any directory.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "spark-rl-installed.json"

# The extras that a command needs; every other command gets those of spark-rl.
EXTRAS: dict[str, set[str]] = {"pytest": {"test"}, "ruff": {"test"}, "mypy": {"test"}, "spark-rl": {"box2d"}}
WITHOUT_JAVA = {"ruff", "mypy"}
# They read their settings from the directory they start in; spark-rl reads the user's paths.
IN_ROOT = {"pytest", "ruff", "mypy"}
# Debian 12 and Ubuntu have the first, Debian 13 the second.
JAVA_PACKAGES = ("openjdk-17-jre-headless", "openjdk-21-jre-headless")


def main(argv: Sequence[str]) -> NoReturn:
    options = parse(argv)
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this may have any python3
        fail("python", sys.version.split()[0], "Python 3.11 or newer", "run this with a newer python3")
    if options.command not in WITHOUT_JAVA:
        ensure_java()
    ensure_installed(options.extras)
    os.environ["VIRTUAL_ENV"] = str(VENV)
    os.environ["PATH"] = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    # Another installation's modules must not come before ours.
    os.environ.pop("PYTHONHOME", None)
    if shutil.which(options.command) is None:
        fail("bootstrap", repr(options.command), "a command on PATH or in .venv/bin", "correct the name")
    if options.command in IN_ROOT:
        os.chdir(ROOT)
    os.execvp(options.command, [options.command, *options.arguments])


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The words before COMMAND are ours, those after it are its own."""
    parser = argparse.ArgumentParser(prog="bootstrap.py", description="Set the project up and run a command in it.")
    parser.add_argument("--extras", metavar="A,B", help="optional dependencies to install, instead of COMMAND's usual")
    parser.add_argument("command", help="pytest, spark-rl, or any program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    usual = EXTRAS.get(options.command, EXTRAS["spark-rl"])
    options.extras = usual if options.extras is None else {name for name in options.extras.split(",") if name}
    return options


def ensure_java() -> None:
    """Java 17 or newer on this machine: found, or installed where that is allowed; else one line and exit code 2."""
    sys.path.insert(0, str(ROOT))  # both modules are of the standard library's means, so nothing need be installed yet
    from spark_rl.errors import UserError
    from spark_rl.spark import java

    try:
        java.find()
    except UserError as missing:
        if not any(apt_install(package) for package in JAVA_PACKAGES):
            fail(missing.where, missing.got, missing.wanted, missing.todo)
        try:
            java.find()
        except UserError as still_missing:
            fail(still_missing.where, still_missing.got, still_missing.wanted, still_missing.todo)


def ensure_installed(extras: set[str]) -> None:
    """The project in .venv with these extras, and with those of earlier calls; nothing to do if stamped."""
    python = VENV / "bin" / "python"
    stamp = read_stamp()
    wanted = {
        "pyproject": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
        "python": sys.version,
        "root": str(ROOT),  # scripts and the editable install name it: a moved clone starts anew
    }
    same_base = all(stamp.get(key) == wanted[key] for key in ("python", "root")) and python.exists()
    installed = set(stamp.get("extras", ())) if same_base else set()
    if same_base and stamp["pyproject"] == wanted["pyproject"] and extras <= installed:
        return
    if not same_base:
        make_venv()
    extras = extras | installed
    say(
        f"installing the project and its dependencies into {VENV} (minutes); extras: {', '.join(sorted(extras)) or '-'}"
    )
    STAMP.unlink(missing_ok=True)  # an interrupted installation leaves no stamp, so it is done again
    target = f"{ROOT}[{','.join(sorted(extras))}]"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-qq"]  # -qq: errors only
    if subprocess.run([*pip, "install", "--editable", target]).returncode != 0:
        fail("pip", "an error (above)", "the packages of pyproject.toml", "see that pip reaches a package index, rerun")
    STAMP.write_text(json.dumps(wanted | {"extras": sorted(extras)}))


def read_stamp() -> dict[str, Any]:
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def make_venv() -> None:
    """An empty .venv of this interpreter, over what may be there."""
    say(f"making {VENV} with {sys.executable}")
    package = f"python3.{sys.version_info.minor}-venv"  # Debian ships venv without ensurepip
    if importlib.util.find_spec("ensurepip") is None and not apt_install(package):
        fail("python", f"{sys.executable} without ensurepip", "a Python that makes environments", f"install {package}")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)]).returncode != 0:
        fail("venv", "an error (above)", f"an environment in {VENV}", "mend it and rerun")


def apt_install(package: str) -> bool:
    """Install a Debian or Ubuntu package, where this is one and we are root; whether it is there now."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    say(f"installing {package} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    # Where the update fails, what lists there are get a try all the same.
    subprocess.run(["apt-get", "update", "-qq"], stdout=subprocess.DEVNULL, env=environment)
    return subprocess.run(install, stdout=subprocess.DEVNULL, env=environment).returncode == 0


def say(text: str) -> None:
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


def fail(where: str, got: str, wanted: str, todo: str) -> NoReturn:
    """The project's four-part error, and its exit code for wrong input."""
    say(f"{where}: got {got}; wanted {wanted}; {todo}")
    sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
