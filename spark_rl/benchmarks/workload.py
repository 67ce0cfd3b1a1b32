"""What the rollout benchmarks step: environments with their usual settings, and a run that only collects."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

from spark_rl import builder
from spark_rl.config import RunConfig
from spark_rl.data.store import Commit, RunStore
from spark_rl.experience import Collector, Experience
from spark_rl.policies import weights as codec
from spark_rl.schema.reports import GroupReport

_HIDDEN = {"mlp": [64, 64], "nature_cnn": [512]}
_MAX_STEPS = 1_000_000  # of one environment in one fragment: a faulty clock must not fill the memory

# DeepMind's preprocessing (Mnih et al. 2015), as conf/ppo_pong.toml has it.
_ATARI = {
    "kwargs": {"frameskip": 1, "repeat_action_probability": 0.0},
    "wrappers": [
        {"entry_point": "gymnasium.wrappers:AtariPreprocessing", "kwargs": {"frame_skip": 4, "grayscale_obs": True}},
        {"entry_point": "gymnasium.wrappers:FrameStackObservation", "kwargs": {"stack_size": 4}},
    ],
}
# environment -> how many a task steps together where the user says nothing
_ENVS_PER_GROUP = {"CartPole-v1": 256, "LunarLander-v3": 16, "ALE/Pong-v5": 8}


def config(
    env: str, *, groups: int, envs_per_group: int = 0, steps: int = 1, network: str = "mlp", seed: int = 0
) -> RunConfig:
    """A run of one iteration's length; `envs_per_group` 0 is the environment's preset, 16 where it has none."""
    envs = envs_per_group or _ENVS_PER_GROUP.get(env, 16)
    return RunConfig.from_dict(
        {
            "run": {"seed": seed, "env_steps": groups * envs * steps},
            "env": {"id": env} | (_ATARI if env.startswith("ALE/") else {}),
            "rollout": {"num_groups": groups, "envs_per_group": envs, "steps_per_env": steps},
            "policy": {"network": network, "hidden": _HIDDEN[network]},
        },
        "benchmark",
    )


@dataclass(frozen=True, slots=True)
class Iteration:
    """A committed iteration."""

    commit: Commit
    reports: list[GroupReport]
    wall_s: float  # collecting (broadcast and job) and committing
    commit_s: float  # committing alone

    @property
    def rate(self) -> float:
        """Transitions committed per second."""
        return self.commit.rows_written / self.wall_s


class CollectingRun:
    """A real run that collects and commits iterations and never learns; every iteration has weights of its own.

    The clock covers what `train` does for an iteration's experience: reading the last commit for its cursors, the
    broadcast, the job, the commit. Making and storing weights is the learner's, and outside.
    """

    def __init__(self, wanted: RunConfig, run_uri: str, collector: Collector) -> None:
        self.env = builder.env_plan(wanted)
        policy = builder.policy_spec(wanted, self.env)
        self._tensors = builder.learner(wanted, policy).weights()
        self.store = RunStore(run_uri)
        described = builder.description(wanted, self.env)
        self.store.create(described)
        self.spec = builder.rollout_spec(wanted, self.env, policy, run_id=described["run_id"], run_uri=self.store.uri)
        self._collector = collector
        self._experience = Experience(self.store, self.spec, collector)
        self._next = self._env_steps = 0

    def weights(self, policy_version: int) -> bytes:
        """Weights that no version before had, so that no cache helps; too small a change to act otherwise."""
        bias = self._tensors["actor.head.bias"]
        return codec.encode(self._tensors | {"actor.head.bias": bias + bias.dtype.type(1e-6 * policy_version)})

    def iterate(self) -> Iteration:
        """Collect and commit one more iteration."""
        k = self._next
        self.store.write_weights(k, self.weights(k))
        began = time.perf_counter()
        collected = self._experience.collect(k, k)
        committing = time.perf_counter()
        commit, _ = self._experience.commit(collected, env_steps=self._env_steps)
        ended = time.perf_counter()
        self._next, self._env_steps = k + 1, commit.env_steps
        return Iteration(commit, collected.reports, ended - began, ended - committing)

    def lengthen(self, steps: int) -> None:
        """Fragments of that many env steps from now on."""
        self.spec = dataclasses.replace(self.spec, steps_per_env=steps)
        self._experience = Experience(self.store, self.spec, self._collector)

    def fill(self, seconds: float) -> int:
        """Lengthen fragments until an iteration takes about `seconds`; the steps. Warms up everything on the way."""
        steps = max(1, 2048 // self.spec.envs_per_group)
        while True:
            self.lengthen(steps)
            wall_s = self.iterate().wall_s
            enough = wall_s > seconds / 4
            steps = min(_MAX_STEPS, math.ceil(steps * 1.1 * seconds / wall_s) if enough else 4 * steps)
            if enough or steps == _MAX_STEPS:
                self.lengthen(steps)
                self.iterate()  # the tasks may meet new workers once after the change
                return steps

    def settings(self) -> dict[str, Any]:
        """What was stepped, for a result's settings."""
        return {
            "env": self.spec.env.id,
            "native": self.spec.native,
            "carry": self.spec.carry,
            "groups": self.spec.num_groups,
            "envs_per_group": self.spec.envs_per_group,
            "steps_per_env": self.spec.steps_per_env,
            "network": self.spec.policy.network,
            "hidden": list(self.spec.policy.hidden),
            "compression": self.spec.compression,
        }
