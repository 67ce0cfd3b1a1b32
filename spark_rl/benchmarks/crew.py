"""Plain operating-system processes that do one thing each, told when: what the machine can do without Spark."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from spark_rl.errors import RunError

Stepper = Callable[[int], int]  # vector steps -> transitions

# What numerical libraries read when they are loaded. A process owns a core, as a Spark task does.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Crew:
    """As many processes as `arguments`; each makes its stepper, `make(*arguments[i])`, and keeps it warm.

    Spawned, not forked: a fork of a process with a JVM gateway and torch's threads is no clean process.
    """

    def __init__(
        self, make: Callable[..., Stepper], arguments: Sequence[tuple[Any, ...]], *, one_thread: bool = True
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._members = []
        with environment(_ONE_THREAD if one_thread else {}):
            for values in arguments:
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there, make, values), daemon=True)
                process.start()
                there.close()
                self._members.append((process, here))
        try:
            for _, connection in self._members:
                _receive(connection)  # ready: imports are done and the environments are reset
        except BaseException:
            self.close()
            raise

    def run(self, steps: int, members: int | None = None) -> tuple[int, float]:
        """The first `members` processes (all if None) take that many vector steps at once: transitions, seconds."""
        chosen = [connection for _, connection in self._members[:members]]
        began = time.perf_counter()
        for connection in chosen:
            connection.send(steps)
        transitions = sum(_receive(connection) for connection in chosen)
        return transitions, time.perf_counter() - began

    def rate(self, steps: int, members: int | None = None) -> float:
        """Transitions per second of one such run."""
        transitions, seconds = self.run(steps, members)
        return transitions / seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for process, connection in self._members:
            connection.close()
            process.terminate()
            process.join()


def _receive(connection: Connection) -> int:
    try:
        answer = connection.recv()
    except EOFError:
        answer = "the process ended without a word"
    if isinstance(answer, str):
        raise RunError("a plain process of the floor", answer, todo="its own messages are above")
    return int(answer)


def _serve(connection: Connection, make: Callable[..., Stepper], arguments: tuple[Any, ...]) -> None:
    try:
        stepper = make(*arguments)
        connection.send(0)
        while True:
            connection.send(stepper(connection.recv()))
    except EOFError:
        return  # the other end is closed: no more work
    except Exception as error:  # told to the one who can raise it where a person sees it
        connection.send(f"{type(error).__name__}: {error}")


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """These environment variables for the processes that start meanwhile; as it was afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
