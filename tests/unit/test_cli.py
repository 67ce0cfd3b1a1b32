"""The command line: what reaches the functions below it, what is printed, and with which exit code it ends."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import types
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from spark_rl import __version__
from spark_rl.cli import app, main, options
from spark_rl.cli.progress import Progress
from spark_rl.cli.sql import query_text
from spark_rl.errors import RunError, UserError

ROOT = Path(__file__).parents[2]
CARTPOLE = str(ROOT / "conf" / "ppo_cartpole.toml")


class Calls(list):
    """What the verbs called, in order, as (name, args, kwargs); `answer` is what they got, an exception is raised."""

    answer: Any = None

    def record(self, name: str) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.append((name, args, kwargs))
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

        return called


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The verbs without what they call: no Spark, no run."""
    seen = Calls()

    @contextmanager
    def no_session(verb: str, properties: Path | None, settings: list[str] | None) -> Any:
        seen.append(("session", (verb, properties, settings), {}))
        yield "SPARK"

    for verb in ("train", "evaluate", "sql", "report"):
        monkeypatch.setattr(sys.modules[f"spark_rl.cli.{verb}"], "session", no_session)
    modules = {
        "spark_rl.train": {"train": "train", "evaluate_run": "evaluate_run"},
        "spark_rl.sql": {},
        "spark_rl.sql.views": {"register": "register"},
        "spark_rl.sql.query": {"run": "query"},
        "spark_rl.report": {"build": "build"},
    }
    for name, functions in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update({attribute: seen.record(label) for attribute, label in functions.items()})
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        monkeypatch.setattr(sys.modules[parent], child, module, raising=False)
    return seen


def last(calls: Calls) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return calls[-1][1], calls[-1][2]


# ---- verbs ----


def test_train(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls.answer = {"iterations": 48, "env_steps": 98304, "return_mean": 499.25}
    words = ["train", CARTPOLE, "--run", "s3://b/r", "--set", "run.seed=7", "--set", "algorithm.clip=0.1", "--resume"]
    assert main([*words, "--spark-conf", "spark.ui.port=1", "--properties-file", "x.conf"]) == 0
    assert calls[0][1] == ("train ppo_cartpole", Path("x.conf"), ["spark.ui.port=1"])
    (config, uri), keywords = last(calls)
    assert (config.run.seed, config.algorithm.clip, uri) == (7, 0.1, "s3://b/r")
    assert (keywords["spark"], keywords["resume"]) == ("SPARK", True)
    assert isinstance(keywords["progress"], Progress)
    assert capsys.readouterr().out == "iterations   48\nenv_steps    98,304\nreturn_mean  499.2\n"


def test_train_json_is_one_object_on_stdout(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls.answer = {"iterations": 48}
    assert main(["train", CARTPOLE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"iterations": 48}
    assert re.fullmatch(r"runs/ppo_cartpole-\d{8}T\d{6}Z", last(calls)[0][1])


def test_train_checks_the_config_before_it_starts_spark(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", CARTPOLE, "--set", "run.sed=1"]) == 2
    assert calls == []
    assert "did you mean 'seed'?" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls.answer = KeyboardInterrupt()
    assert main(["train", CARTPOLE, "--run", "my runs/r", "--set", "run.seed=7"]) == 130
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(f"go on with: spark-rl train {CARTPOLE} --set run.seed=7 --run 'my runs/r' --resume")


def test_ctrl_c_elsewhere(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls.answer = KeyboardInterrupt()
    assert main(["evaluate", "r"]) == 130
    assert capsys.readouterr().err.strip() == "spark-rl: interrupted"


def test_evaluate(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls.answer = {"return_mean": 500.0}
    assert main(["evaluate", "r", "--episodes", "7", "--policy-version", "3", "--json"]) == 0
    assert last(calls) == (("r",), {"spark": "SPARK", "episodes": 7, "policy_version": 3})
    assert json.loads(capsys.readouterr().out) == {"return_mean": 500.0}


@pytest.mark.parametrize(("flags", "output"), [([], "table"), (["--json"], "json"), (["--csv"], "csv")])
def test_sql(calls: Calls, flags: list[str], output: str) -> None:
    assert main(["sql", "a", "b", "-e", "SELECT 1", *flags]) == 0
    assert calls[-2] == ("register", ("SPARK", ["a", "b"]), {})
    assert last(calls) == (("SPARK", "SELECT 1"), {"output": output, "stream": sys.stdout})


def test_where_a_query_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "q.sql"
    file.write_text("SELECT 2")
    assert query_text(None, file) == "SELECT 2"
    assert query_text("SELECT 1", None) == "SELECT 1"
    assert query_text(None, None) is None
    with pytest.raises(UserError, match="got -e and -f; wanted one query"):
        query_text("SELECT 1", file)
    with pytest.raises(UserError, match="No such file"):
        query_text(None, tmp_path / "none.sql")


def test_report(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls.answer = "r/report.html"
    assert main(["report", "r", "-o", "page.html", "--png", "pictures"]) == 0
    assert last(calls) == (("r",), {"spark": "SPARK", "output": Path("page.html"), "png_dir": Path("pictures")})
    assert capsys.readouterr().out == "r/report.html\n"


# ---- ends ----


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("r", "nothing", "a run", "train one"), 2, "spark-rl: r: got nothing; wanted a run; train one"),
        (RunError("group 3: the environment\nraised"), 1, "spark-rl: group 3: the environment raised"),
        (ZeroDivisionError("x\ny"), 1, "spark-rl: ZeroDivisionError: x; --debug shows where it happened"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(
    calls: Calls, capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    calls.answer = error
    assert main(["evaluate", "r"]) == code
    assert capsys.readouterr().err == line + "\n"
    assert main(["evaluate", "r", "--debug"]) == code
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.endswith(line + "\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "Missing command; see spark-rl --help"),
        (["trian"], "No such command 'trian'. Did you mean 'train'?; see spark-rl --help"),
        (["train"], "Missing argument 'CONFIG'; see spark-rl train --help"),
        (["train", "x", "--rum", "y"], "No such option: --rum"),
        (["evaluate", "r", "--episodes", "0"], "Invalid value for '--episodes'"),
        (["evaluate", "r", "--episodes", "many"], "Invalid value for '--episodes'"),
        (["sql", "r", "--json", "--csv"], "sql: got --json and --csv; wanted one of them; take one out"),
        (["train", "x.toml", "--resume"], "--resume: got no --run; wanted the directory of the run"),
        (["train", "x.toml"], "x.toml: got No such file or directory; wanted a TOML file; correct the path"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], words: list[str], line: str) -> None:
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith(f"spark-rl: {line}")


@pytest.mark.parametrize("settings", [["ui.port=1"], ["spark.ui.port"]])
def test_a_wrong_spark_setting(capsys: pytest.CaptureFixture[str], settings: list[str]) -> None:
    assert main(["evaluate", "r", "--spark-conf", *settings]) == 2
    assert "wanted spark.KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [verb.__name__ for verb in app.VERBS])
def test_every_verb_has_help_and_a_job(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert main([verb, "--help"]) == 0
    assert "Usage: spark-rl " + verb in capsys.readouterr().out
    job = subprocess.run(
        [sys.executable, ROOT / "jobs" / f"{verb}.py", "--nonsense"], capture_output=True, text=True, check=False
    )
    assert job.returncode == 2
    assert job.stderr.startswith("spark-rl: No such option: --nonsense")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


# ---- what a person sees ----


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345, "12,345"), (0.123456, "0.1235"), (98304.5, "98,304.5"), (True, "True"), ("a", "a"), (None, "None")],
)
def test_readable(value: object, text: str) -> None:
    assert options.readable(value) == text


METRICS = {"rollout/return_mean": 21.25, "throughput/env_steps_per_s": 12345.6, "time/learn_s": 0.5, "iteration": 1}


def test_progress_is_a_plain_line_an_iteration_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with Progress(Console(file=stream, force_terminal=False, soft_wrap=True)) as progress:
        progress.start("runs/[odd]", 4, first_iteration=1)
        progress.iteration(1, METRICS)
        progress.note("one word")
    first, second, third = stream.getvalue().splitlines()
    assert first == "run runs/[odd]: 4 iterations, from iteration 1"
    assert re.fullmatch(r"iteration 2/4: return 21\.2, 12,346 env steps/s, learning 0\.50 s, 0:00 left", second)
    assert third == "one word"


def test_progress_is_a_bar_on_a_terminal() -> None:
    stream = io.StringIO()
    with Progress(Console(file=stream, force_terminal=True, width=120)) as progress:
        progress.start("runs/r", 4)
        progress.iteration(1, METRICS)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "2/4" in plain
    assert "return 21.2" in plain
    assert "iteration 2/4" not in plain
