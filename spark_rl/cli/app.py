"""The verbs in one table, and the one place where an exception becomes a line and an exit code."""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from spark_rl.cli.audit import audit
from spark_rl.cli.benchmark import benchmark
from spark_rl.cli.collect import collect
from spark_rl.cli.compact import compact
from spark_rl.cli.evaluate import evaluate
from spark_rl.cli.offline import offline
from spark_rl.cli.report import report
from spark_rl.cli.sql import sql
from spark_rl.cli.train import train
from spark_rl.errors import SparkRLError
from spark_rl.version import __version__

# A verb is a file with one function, and a line here.
VERBS = (train, evaluate, collect, offline, audit, compact, sql, report, benchmark)

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

# typer exports this class's children only, and brings click along in some releases and its own copy in others.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; `argv` is what follows the program's name. Returns the exit code.

    0 done; 1 a run failed; 2 the input is wrong: one line on stderr. 130 after Ctrl-C. `--debug`, anywhere on the line,
    adds the traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    # A user's own environments lie where the command is typed; `python -m` finds them there too.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    # It concerns conversions to and from pandas; ours go through Arrow.
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
    try:
        code = _app()(words, prog_name="spark-rl", standalone_mode=False) or DONE
        if code == INTERRUPTED:  # newer typers swallow the KeyboardInterrupt, older ones raise Abort
            raise KeyboardInterrupt
        return code
    except (KeyboardInterrupt, typer.Abort) as error:
        return _end(error, "interrupted", INTERRUPTED, debug)
    except SparkRLError as error:
        return _end(error, str(error), error.exit_code, debug)
    except _UsageError as error:
        return _end(error, _usage(error), WRONG_INPUT, debug)
    except Exception as error:  # the command line's end: whatever is left is a failed run, told in one line
        reason = _first_line(error)
        return _end(error, f"{type(error).__name__}: {reason}; --debug shows where it happened", FAILED, debug)


def _app() -> typer.Typer:
    app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False)
    for verb in VERBS:
        app.command()(verb)

    @app.callback()
    def spark_rl(
        version: bool = typer.Option(False, "--version", is_eager=True, callback=_version, help="Say which and stop."),
        debug: bool = typer.Option(False, "--debug", help="With an error, show its traceback; works after a verb too."),
    ) -> None:
        """Reinforcement learning on Spark: every verb also runs as spark-submit jobs/VERB.py."""

    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _end(error: BaseException, line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    typer.echo(f"spark-rl: {line}", err=True)
    return code


def _usage(error: Any) -> str:
    """What typer has to say, on one line: `Missing argument 'CONFIG'; see spark-rl train --help`."""
    verb = error.ctx.command_path if error.ctx else "spark-rl"
    return f"{' '.join(error.format_message().split()).rstrip('.')}; see {verb} --help"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:500] if lines else "no message"
