"""A run directory: what is committed, how an iteration gets committed, and what a crash may have left behind.

Only the driver writes here; tasks write into staging (see `rollout.writer`). An iteration exists when its commit record
does, and the record is written last.
"""

from __future__ import annotations

import json
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from spark_rl import files, metrics
from spark_rl.errors import RunError, UserError
from spark_rl.schema import layout
from spark_rl.schema.reports import FileReport, GroupReport
from spark_rl.schema.tables import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Commit:
    """The record of one iteration: its files, and the weights that acted."""

    iteration: int
    policy_version: int
    weights_sha256: str
    rows_planned: int
    rows_written: int
    rows_reset: int
    env_steps: int  # committed since the start of the run, this iteration included
    files: tuple[FileReport, ...]
    committed_at: str  # UTC, ISO 8601
    wall_s: float  # of the rollout job
    oldest_needed: int  # first iteration that the next one may have to replay: retention keeps it
    merged_from: tuple[FileReport, ...] = ()  # the files that `compact` merged: what the tasks wrote
    metrics: dict[str, float] = field(default_factory=dict)  # of the rollout: metrics.jsonl is written after learning

    @property
    def original_files(self) -> tuple[FileReport, ...]:
        """What the tasks wrote; an audit compares with these."""
        merged = {file.table for file in self.merged_from}
        return (*self.merged_from, *(file for file in self.files if file.table not in merged))

    def of(self, table: str) -> list[FileReport]:
        """The files of one table, in the order of the groups."""
        return sorted((file for file in self.files if file.table == table), key=lambda file: file.name)

    def hashes(self, table: str) -> dict[str, str]:
        """File name -> sha256 for the files of one table."""
        return {file.name: file.sha256 for file in self.files if file.table == table}

    @classmethod
    def from_json(cls, text: bytes) -> Commit:
        """Inverse of `to_json`."""
        raw = json.loads(text)
        listed = {key: tuple(FileReport(**file) for file in raw[key]) for key in ("files", "merged_from")}
        return cls(**raw | listed)

    def to_json(self) -> bytes:
        """One JSON object."""
        return json.dumps(asdict(self), indent=1).encode()


class RunStore:
    """One run directory, opened for its driver or for reading."""

    def __init__(self, uri: str) -> None:
        self.root = files.open_root(uri)
        self.uri = self.root.uri
        self.name = self.root.name  # the same for people: without credentials

    # -- the run itself

    def create(self, description: dict[str, Any]) -> None:
        """Begin a run. UserError where the directory is in use by a run, holds something else, or cannot be written."""
        try:
            if self.root.exists(layout.RUN):
                raise UserError(
                    where=f"run directory {self.name}", got="a run that has begun already", wanted="a new directory",
                    todo="continue it with --resume, or choose another with --run",
                )  # fmt: skip
            # One who was killed while writing run.json left a temporary file, and no run.
            names = [name for name in self.root.names() if not files.is_temporary(name)]
            if names:
                raise UserError(
                    where=f"run directory {self.name}", got=f"a directory with other content ({', '.join(names[:3])})",
                    wanted="an empty or missing directory", todo="choose another with --run",
                )  # fmt: skip
            self.root.write(layout.RUN, json.dumps(description, indent=1).encode())
        except OSError as error:
            raise UserError(
                where=f"run directory {self.name}", got=files.redact(" ".join(str(error).split())),
                wanted="a place to write", todo="choose another with --run, or mend its permissions",
            ) from error  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """The content of run.json; UserError where there is no run, or one that this version cannot read."""
        try:
            content = self.root.read(layout.RUN)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(
                where=f"run directory {self.name}", got=f"no {layout.RUN}", wanted="the directory of a run",
                todo="check the path; `train CONFIG --run URI` begins a run",
            ) from error  # fmt: skip
        try:
            found = dict(json.loads(content))
            version = int(found["schema_version"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                where=f"{self.name}/{layout.RUN}", got="a file that is damaged, or no run's",
                wanted="what `train` wrote there", todo="restore it from a copy, or choose another run",
            ) from error  # fmt: skip
        if version > SCHEMA_VERSION:
            raise UserError(
                where=f"{self.name}/{layout.RUN}", got=f"schema_version {version}",
                wanted=f"at most {SCHEMA_VERSION}: a newer spark_rl wrote this run", todo="upgrade spark_rl",
            )  # fmt: skip
        return found

    # -- iterations

    def iterations(self) -> list[int]:
        """Committed iterations, ascending."""
        names = self.root.names(layout.COMMITS)
        return sorted(int(name.removesuffix(".json")) for name in names if name.endswith(".json"))

    def commit(self, iteration: int) -> Commit:
        """The record of a committed iteration; RunError where it is not committed."""
        try:
            return Commit.from_json(self.root.read(layout.commit(iteration)))
        except FileNotFoundError as error:
            raise RunError(
                where=f"iteration {iteration} in {self.name}", got="no commit record", wanted="a committed iteration",
                todo=f"committed: {_span(self.iterations())}",
            ) from error  # fmt: skip

    def publish(
        self, iteration: int, reports: list[GroupReport], *, num_groups: int, weights_sha256: str, env_steps: int,
        wall_s: float, rollout_metrics: dict[str, float] | None = None,
    ) -> Commit:  # fmt: skip
        """Check what the tasks left, make it visible, and write the record.

        `env_steps` counts what was committed before. Raises RunError if a group is missing, counted twice or reports
        rows that do not add up, or if staging does not hold exactly the reported files.
        """
        _account(iteration, reports, num_groups)
        produced = tuple(file for report in sorted(reports, key=lambda r: r.group) for file in report.files)
        for table in layout.TABLES:
            wanted = {file.name: file.size_bytes for file in produced if file.table == table}
            place = layout.staged if self.root.has_rename else layout.committed
            self._check(place(table, iteration), wanted)
            if wanted and self.root.has_rename:
                # A directory here is what a crash left between rename and record: nothing else writes these names.
                self._vanish(layout.committed(table, iteration))
                self.root.rename(layout.staged(table, iteration), layout.committed(table, iteration))
        written = sum(report.rows_written for report in reports)
        commit = Commit(
            iteration=iteration,
            policy_version=reports[0].policy_version,
            weights_sha256=weights_sha256,
            rows_planned=sum(report.rows_planned for report in reports),
            rows_written=written,
            rows_reset=sum(report.rows_reset for report in reports),
            env_steps=env_steps + written,
            files=produced,
            committed_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            wall_s=round(wall_s, 4),
            oldest_needed=min(report.oldest_needed for report in reports),
            metrics=rollout_metrics or {},
        )
        self.root.write(layout.commit(iteration), commit.to_json())
        # A speculative twin that is still being killed may write there meanwhile; what stays is swept later.
        with suppress(OSError):
            self.root.delete(f"{layout.STAGING}/{iteration}")
        return commit

    def _check(self, directory: str, wanted: dict[str, int]) -> None:
        # An attempt that is still being killed may leave a temporary file behind, never a file under a final name.
        found = {name: size for name, size in self.root.sizes(directory).items() if not files.is_temporary(name)}
        if found != wanted:
            names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            raise RunError(
                where=f"{directory} in {self.name}", got=f"files that differ from the tasks' reports: {names[:5]}",
                wanted=f"{len(wanted)} files of {sum(wanted.values()):,} bytes",
                todo="resume the run: the iteration is collected again with the same rows",
            )  # fmt: skip
        for name in self.root.sizes(directory).keys() - found.keys():
            with suppress(FileNotFoundError):  # its writer may have come to the rename
                self.root.delete(f"{directory}/{name}")

    def sweep(self) -> list[str]:
        """Remove what no commit record covers; the places removed. Called once, before a run begins or goes on."""
        known = set(self.iterations())
        places = []
        for table in layout.TABLES:
            for name in self.root.names(table):
                iteration = name.removeprefix("iteration=")
                if iteration.isdigit() and int(iteration) not in known:
                    places.append(f"{table}/{name}")
        for place in places:
            self._vanish(place)
        if self.root.exists(layout.STAGING):
            self.root.delete(layout.STAGING)
            places.append(layout.STAGING)
        return places

    def _vanish(self, place: str) -> None:
        """Delete a directory of a table: out of plain readers' sight in one operation, then file by file."""
        if self.root.has_rename and self.root.exists(place):
            hidden = f"{layout.STAGING}/{uuid.uuid4().hex}"
            self.root.rename(place, hidden)
            place = hidden
        self.root.delete(place)

    def delete_iteration(self, iteration: int) -> None:
        """Forget an iteration's rows: the record first, so that no reader is promised what is going away."""
        self.root.delete(layout.commit(iteration))
        for table in layout.TABLES:
            self._vanish(layout.committed(table, iteration))

    # -- weights and metrics

    def write_weights(self, policy_version: int, content: bytes) -> None:
        """Publish the weights of a version."""
        self.root.write(layout.weights(policy_version), content)

    def read_weights(self, policy_version: int) -> bytes:
        """The weights of a version; UserError where the run has no such version."""
        try:
            return self.root.read(layout.weights(policy_version))
        except FileNotFoundError as error:
            raise UserError(
                where=f"policy version {policy_version} of {self.name}", got="no weights",
                wanted=f"one of {_span(self.policy_versions())}", todo="choose one of these",
            ) from error  # fmt: skip

    def policy_versions(self) -> list[int]:
        """Versions whose weights are stored, ascending."""
        names = self.root.names("policies")
        return sorted(int(name.removeprefix("policy_version=")) for name in names if name.startswith("policy_version="))

    def append_metrics(self, rows: list[dict[str, float]]) -> None:
        """Add rows to metrics.jsonl. ValueError for a name that spark_rl.metrics does not define.

        On an object store, which cannot append, the file is written anew; it has one short line an iteration.
        """
        for row in rows:
            metrics.check(row)
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if self.root.has_rename:
            with self.root.filesystem.open_append_stream(self.root.locate(layout.METRICS)) as stream:
                stream.write(text)
        else:
            before = self.root.read(layout.METRICS) if self.root.exists(layout.METRICS) else b""
            self.root.write(layout.METRICS, before + text)

    def read_metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl; a line that a crash cut short is left out."""
        if not self.root.exists(layout.METRICS):
            return []
        lines = self.root.read(layout.METRICS).split(b"\n")
        return [json.loads(line) for line in lines[:-1]]

    def keep_metrics(self, before: int) -> None:
        """Drop the rows of iterations that are about to be done again, and a line that a crash cut short."""
        if self.root.exists(layout.METRICS):
            rows = [row for row in self.read_metrics() if row["iteration"] < before]
            self.root.write(layout.METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _account(iteration: int, reports: list[GroupReport], num_groups: int) -> None:
    """Every planned step of every group is a row or a reset, once."""
    groups = sorted(report.group for report in reports)
    if groups != list(range(num_groups)):
        raise RunError(
            where=f"iteration {iteration}", got=f"reports of groups {groups}", wanted=f"one of each of {num_groups}",
            todo="this is a defect in spark_rl; nothing was committed",
        )  # fmt: skip
    for report in reports:
        rows = sum(file.rows for file in report.files if file.table == layout.TRANSITIONS)
        if rows != report.rows_written or report.rows_written + report.rows_reset != report.rows_planned:
            raise RunError(
                where=f"iteration {iteration}, group {report.group}",
                got=f"{rows:,} rows in files, {report.rows_written:,} written, {report.rows_reset:,} resets",
                wanted=f"{report.rows_planned:,} planned steps, each a row or a reset",
                todo="this is a defect in spark_rl; nothing was committed",
            )  # fmt: skip


def _span(numbers: list[int]) -> str:
    return "none" if not numbers else f"{numbers[0]} to {numbers[-1]} ({len(numbers)})"
