"""Proof that a run is what it says: its iterations are executed again from what is stored, and must give the same bits.

Rows: iteration k is collected again, from the cursors of k - 1 and the weights that acted, into a place of its own, and
every file's hash is compared with the commit record. Weights: learning is repeated from the stored rows, beginning at
the nearest checkpoint or at the seed, and the weights of every version on the way are compared with the stored ones.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from spark_rl import builder, checkpoint
from spark_rl.config import RunConfig
from spark_rl.data.batch import Batch
from spark_rl.data.reader import read_iteration
from spark_rl.data.store import Commit, RunStore
from spark_rl.errors import RunError, UserError
from spark_rl.experience import Collector, Progress, Silent, group_tasks, make_collector
from spark_rl.files import open_root
from spark_rl.policies import weights as codec
from spark_rl.policies.spec import PolicySpec
from spark_rl.rollout.spec import RolloutSpec
from spark_rl.schema.reports import FileReport

_PLACE = "_audit"  # inside the run: the executors can write there, and no reader looks


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that did not come out as stored."""

    iteration: int
    what: str  # a file, or the weights of a version
    got: str  # sha256
    wanted: str


def audit(
    run_uri: str,
    *,
    iterations: Sequence[int] | None = None,
    learn: bool = True,
    spark: Any = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Check `iterations` (all committed ones if None); with `learn`, the updates up to the last of them too.

    Returns what was checked. Raises RunError naming the first thing that differs, UserError for an iteration that is
    not there to be checked.
    """
    store = RunStore(run_uri)
    stored = store.describe()
    config = RunConfig.from_dict(stored["config"], store.name)
    env = builder.stored_plan(config, stored)
    if stored.get("behavior") is None:
        policy = builder.policy_spec(config, env)
    else:
        from spark_rl.collect import behavior

        policy = behavior(env=env, **stored["behavior"]).spec
        learn = False  # nobody learned
    spec = builder.rollout_spec(config, env, policy, run_id=stored["run_id"], run_uri=store.uri)
    committed = store.iterations()
    chosen = committed if iterations is None else sorted(set(iterations))
    missing = sorted(set(chosen) - set(committed))
    if missing or not committed:
        raise UserError(f"audit of {store.name}", f"iterations {missing}", f"{committed[:1]} to {committed[-1:]}",
                        "choose committed ones")  # fmt: skip
    collector = make_collector(spark)
    watcher = progress or Silent()
    try:
        checked = [_rows(store, spec, k, collector, watcher) for k in chosen]
    finally:
        collector.close()
    versions = _updates(store, config, policy, chosen, watcher) if learn else []
    return {
        "run": store.name,
        "iterations": len(chosen),
        "rows": sum(rows for rows, _ in checked),
        "files": sum(files for _, files in checked),
        "policy_versions": len(versions),
        "identical": True,
    }


def _rows(store: RunStore, spec: RolloutSpec, k: int, collector: Collector, progress: Progress) -> tuple[int, int]:
    """Collect iteration k again and compare; the rows and files that were the same."""
    commit = store.commit(k)
    place = f"{_PLACE}/{uuid.uuid4().hex}"
    # Another run_id, so that a worker's live environments of the run itself are neither used nor lost.
    again = replace(spec, output_uri=_inside(store.uri, place), run_id=f"{spec.run_id}-audit-{place}")
    tasks = group_tasks(store, k, commit.policy_version, list(range(spec.num_groups)))
    try:
        reports = collector.collect(again, tasks, store.read_weights(commit.policy_version))
    finally:
        open_root(again.output_uri).delete("")
        if not store.root.names(_PLACE):
            store.root.delete(_PLACE)
    produced = [file for report in reports for file in report.files]
    finding = _compare(commit, produced)
    if finding:
        raise _differs(store, finding)
    progress.note(f"iteration {k}: {commit.rows_written:,} rows in {len(produced)} files, the same to the bit")
    return commit.rows_written, len(produced)


def _inside(uri: str, place: str) -> str:
    """A URI below another; a query (an endpoint, a region) stays at the end."""
    base, mark, query = uri.partition("?")
    return f"{base.rstrip('/')}/{place}{mark}{query}"


def _compare(commit: Commit, produced: list[FileReport]) -> Finding | None:
    wanted = {(file.table, file.name): file.sha256 for file in commit.original_files}
    got = {(file.table, file.name): file.sha256 for file in produced}
    for table, name in sorted(wanted.keys() | got.keys()):
        one, other = got.get((table, name), "no such file"), wanted.get((table, name), "no such file")
        if one != other:
            return Finding(commit.iteration, f"{table}/{name}", one, other)
    return None


def _updates(
    store: RunStore, config: RunConfig, policy: PolicySpec, chosen: list[int], progress: Progress
) -> list[int]:
    """Learn again through the chosen iterations, from the nearest checkpoint before them or from the seed.

    Returns the versions that came out the same.
    """
    last = chosen[-1]
    learner = builder.learner(config, policy)

    def read(k: int) -> Batch:
        return read_iteration(store.root, store.commit(k), policy.observation, policy.action)

    found = checkpoint.newest(store.root, [k for k in store.iterations() if k < chosen[0]])
    first = 0
    if found is not None:
        learner.load(found.state_tensors, found.state_scalars, read)
        first = found.iteration + 1
    versions = []
    for k in range(first, last + 1):
        learner.update(read(k), iteration=k, progress=k / config.num_iterations)
        got = codec.sha256(codec.encode(learner.weights()))
        wanted = codec.sha256(store.read_weights(k + 1))
        if got != wanted:
            raise _differs(store, Finding(k, f"weights of policy version {k + 1}", got, wanted))
        versions.append(k + 1)
    progress.note(f"policy versions {first + 1} to {last + 1}: learned again, the same to the bit")
    return versions


def _differs(store: RunStore, finding: Finding) -> RunError:
    return RunError(
        where=f"audit of {store.name}, iteration {finding.iteration}, {finding.what}",
        got=f"sha256 {finding.got[:16]}", wanted=f"{finding.wanted[:16]}, as stored",
        todo="compare run.json's versions and device with this machine's; if they are equal, the run was changed",
    )  # fmt: skip
