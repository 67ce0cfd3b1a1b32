"""What a person sees while a run goes on: a bar on a terminal, one line an iteration anywhere else. All on stderr."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

# metric -> how a line says it
_SHOWN = {
    "rollout/return_mean": "return {:.1f}",
    "rollout/length_mean": "length {:.0f}",
    "throughput/env_steps_per_s": "{:,.0f} env steps/s",
    "time/learn_s": "learning {:.2f} s",
    "evaluation/return_mean": "evaluation {:.1f}",
}


class Progress:
    """Told of a run's course by `start`, `iteration` and `note`; a context manager, so that no bar stays behind."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._total = self._first = 0
        self._began = time.monotonic()

    def start(self, run_uri: str, num_iterations: int, first_iteration: int = 0) -> None:
        """The run has begun: iterations `first_iteration` to `num_iterations` - 1 are to come."""
        self._total, self._first, self._began = num_iterations, first_iteration, time.monotonic()
        at = f", from iteration {first_iteration}" if first_iteration else ""
        self.note(f"run {run_uri}: {num_iterations} iterations{at}")
        if self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=self._console)
            self._bar.add_task("", total=num_iterations, completed=first_iteration)
            self._bar.start()

    def iteration(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """One more iteration is committed and learned from; `metrics` is its line of metrics.jsonl."""
        facts = ", ".join(text.format(metrics[name]) for name, text in _SHOWN.items() if name in metrics)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=iteration + 1, description=facts)
        else:
            self.note(f"iteration {iteration + 1}/{self._total}: {facts}, {self._left(iteration)}")

    def note(self, text: str) -> None:
        """A line that stays: something a person should know once."""
        self._console.print(text, markup=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _left(self, iteration: int) -> str:
        """Time to the end at the mean speed so far."""
        seconds = (time.monotonic() - self._began) / (iteration + 1 - self._first) * (self._total - iteration - 1)
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes}:{seconds:02d} left"
