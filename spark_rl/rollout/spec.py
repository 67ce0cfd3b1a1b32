"""What crosses the wire between driver and tasks: frozen data, and nothing that grows with the run."""

from __future__ import annotations

from dataclasses import dataclass

from spark_rl.envs.spec import EnvSpec
from spark_rl.policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutSpec:
    """The same for every task of a run."""

    run_id: str  # keys the workers' caches; unique per run directory
    run_uri: str
    seed: int
    env: EnvSpec
    native: bool  # step the environment's own vector implementation
    carry: str  # "snapshot" | "replay" | "cut": see envs.carry
    policy: PolicySpec
    num_groups: int
    envs_per_group: int
    steps_per_env: int
    deadline_s: float  # for one step of all environments of a group, and for one reset
    compression: str = "zstd"
    output_uri: str = ""  # where files are left, if not in the run: an audit must not touch what it checks


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupTask:
    """One task: which fragment to collect. A pure function of (spec, task, weights) produces its files."""

    iteration: int
    group: int
    policy_version: int
    cursor_sha256: str = ""  # of the cursor to go on from, committed with iteration - 1; "" = begin
