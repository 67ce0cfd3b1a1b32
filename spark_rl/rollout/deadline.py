"""A limit on how long one step may take, for environments that hang."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from spark_rl.errors import RunError


class Rearm(Protocol):
    """Starts the count again."""

    def __call__(self) -> None: ...


@contextmanager
def deadline(seconds: float, where: str) -> Iterator[Rearm]:
    """Raises RunError in this thread when the yielded function is not called again within `seconds`.

    A Python worker runs its task in the main thread, where a signal can interrupt Python code (and most C code that
    releases to the interpreter). Elsewhere, in a notebook's or a test's thread, there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def expire(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signal's interface)
        raise RunError(where=where, got=f"no answer for {seconds:g} s", wanted="a step within the deadline",
                       todo="mend the environment, or raise [rollout] deadline_s")  # fmt: skip

    before = signal.signal(signal.SIGALRM, expire)
    try:
        yield lambda: _arm(seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _arm(seconds: float) -> None:
    # Again and again: an environment that swallows exceptions would swallow a single one.
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
