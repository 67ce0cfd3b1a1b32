"""What tasks tell the driver: counts, names and hashes; never transitions."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class FileReport:
    """A file that a task left in staging."""

    table: str
    name: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupReport:
    """What a task tells the driver: counts and hashes, never transitions."""

    group: int
    policy_version: int
    files: tuple[FileReport, ...]
    rows_planned: int
    rows_written: int
    rows_reset: int  # planned steps that only reset a vector environment: no transitions
    episode_returns: tuple[float, ...]  # of the episodes that ended here, in order; cut ones are not in it
    episode_lengths: tuple[int, ...]
    attempt: int = 0
    source: str = "start"  # start | live | snapshot | replay | cut
    replayed_steps: int = 0
    oldest_needed: int = 0  # first iteration whose rows the group's next task may have to replay
    ended_at: float = 0.0  # seconds since the epoch, by the worker's clock
    times_s: dict[str, float] = field(default_factory=dict)  # prepare, step, write, total
