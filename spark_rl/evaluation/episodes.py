"""Greedy episodes of a policy version, played wherever the collector plays them."""

from __future__ import annotations

from typing import Protocol

from spark_rl.evaluation.statistics import summarize
from spark_rl.rollout.evaluate import EpisodeResult, EvaluationTask
from spark_rl.rollout.spec import RolloutSpec


class Evaluator(Protocol):
    """The part of a collector that plays episodes."""

    def evaluate(self, spec: RolloutSpec, tasks: list[EvaluationTask], weights: bytes) -> list[EpisodeResult]:
        """Play every task's episodes."""


def evaluate(
    evaluator: Evaluator, spec: RolloutSpec, *, policy_version: int, weights: bytes, episodes: int
) -> dict[str, float]:
    """The `evaluation/` metrics over `episodes` greedy episodes, split evenly over the run's groups.

    Episode i has the same start for every policy version, so versions are compared on the same episodes.
    """
    tasks = []
    first = 0
    for group in range(min(spec.num_groups, episodes)):
        num = episodes // spec.num_groups + (group < episodes % spec.num_groups)
        tasks.append(EvaluationTask(policy_version=policy_version, first_episode=first, num_episodes=num))
        first += num
    results = sorted(evaluator.evaluate(spec, tasks, weights), key=lambda result: result.episode)
    returns, lengths = [r.episode_return for r in results], [r.length for r in results]
    return summarize(returns, lengths, seed=spec.seed)
