"""Greedy episodes for evaluation: one episode per environment, so that short episodes are not over-represented."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spark_rl import seeding
from spark_rl.envs.group import make_group
from spark_rl.errors import RunError
from spark_rl.rollout.deadline import deadline
from spark_rl.rollout.run import policy_for
from spark_rl.rollout.spec import RolloutSpec

# Environments stepped together; more only costs memory.
_WIDTH = 64
# No environment we know of has longer episodes (ALE's end after 27,000 steps), and one without an end has no score.
_LONGEST = 500_000


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTask:
    """`num_episodes` episodes numbered from `first_episode`; each has its own start, the same for every policy."""

    policy_version: int
    first_episode: int
    num_episodes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeResult:
    """One evaluation episode."""

    episode: int
    episode_return: float
    length: int
    terminated: bool


def evaluate_group(spec: RolloutSpec, task: EvaluationTask, weights: bytes) -> list[EpisodeResult]:
    """Run the task's episodes to their ends with the policy's mode."""
    results: list[EpisodeResult] = []
    first, end = task.first_episode, task.first_episode + task.num_episodes
    while first < end:
        num = min(_WIDTH, end - first)
        results += _first_episodes(spec, first, num, weights)
        first += num
    return results


def _first_episodes(spec: RolloutSpec, first: int, num: int, weights: bytes) -> list[EpisodeResult]:
    policy = policy_for(spec, weights)
    group = make_group(spec.env, native=spec.native, seed=spec.seed, stream=seeding.EVALUATION, first_env=first,
                       num_envs=num)  # fmt: skip
    state = policy.initial_state(num)
    returns, lengths = np.zeros(num), np.zeros(num, np.int64)
    over, terminated = np.zeros(num, bool), np.zeros(num, bool)
    with deadline(spec.deadline_s, f"evaluation of {spec.env.id}, episodes {first} to {first + num - 1}") as arm:
        arm()
        group.start(0)
        while not over.all():
            arm()
            if lengths.max() >= _LONGEST:
                raise RunError(
                    where=f"evaluation of {spec.env.id}, episode {first + int(lengths.argmax())}",
                    got=f"no end after {_LONGEST:,} steps", wanted="episodes that end",
                    todo="set a time limit: [env] max_episode_steps",
                )  # fmt: skip
            act = policy.act_greedy(group.observation, state)
            step = group.step(act.action)
            state = act.state
            returns += np.where(over, 0.0, step.reward)
            lengths += ~over
            terminated |= step.terminated & ~over
            over |= step.terminated | step.truncated
    group.close()
    return [
        EpisodeResult(episode=first + i, episode_return=float(returns[i]), length=int(lengths[i]),
                      terminated=bool(terminated[i]))
        for i in range(num)
    ]  # fmt: skip
