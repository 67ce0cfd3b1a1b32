"""Every metric's name and meaning, once. The store refuses a name that is not here."""

from __future__ import annotations

from collections.abc import Mapping

NAMES: dict[str, str] = {
    "iteration": "rollout and update round, from 0",
    "env_steps": "transitions committed since the start of the run",
    "policy_version": "version of the weights that acted in this iteration",
    "rollout/return_mean": "undiscounted return of episodes that ended this iteration, reward units; absent if none",
    "rollout/return_std": "standard deviation of those returns",
    "rollout/return_min": "smallest of those returns",
    "rollout/return_max": "largest of those returns",
    "rollout/length_mean": "env steps of the episodes that ended this iteration",
    "rollout/episodes": "episodes that ended this iteration",
    "rollout/rows_planned": "groups x environments x steps of the plan",
    "rollout/rows_written": "transitions committed this iteration",
    "rollout/rows_reset": "planned steps that a vector environment spent on resets, which are no transitions",
    "rollout/bytes": "size of this iteration's files",
    "rollout/tasks_retried": "groups whose result came from a later attempt than the first",
    "rollout/live": "groups that went on with live environments of a worker's cache",
    "rollout/restored": "groups whose environments came from a state snapshot",
    "rollout/replayed": "groups whose environments came from replaying stored actions",
    "rollout/replayed_steps": "env steps spent on replays; they are not experience",
    "rollout/staleness_max": "newest policy_version minus the oldest that produced a row, iterations",
    "time/rollout_s": "wall time of the rollout job, from broadcast to the last task's report",
    "time/task_s_max": "wall time of the slowest task, inside the Python worker",
    "time/step_s_mean": "mean over tasks of the time spent stepping environments and acting",
    "time/write_s_mean": "mean over tasks of the time spent encoding and writing Parquet",
    "time/prepare_s_mean": "mean over tasks of the time spent getting environments and weights ready",
    "time/commit_s": "checking, publishing and committing the iteration's files",
    "time/read_s": "reading the committed rows back",
    "time/learn_s": "the algorithm's update",
    "time/evaluation_s": "the evaluation job of this iteration",
    "time/iteration_s": "the whole iteration, evaluation included, up to its checkpoint",
    "throughput/env_steps_per_s": "transitions of this iteration over time/iteration_s",
    "throughput/rollout_env_steps_per_s": "transitions of this iteration over time/rollout_s",
    "evaluation/return_mean": "greedy return over the evaluation's episodes, reward units",
    "evaluation/return_std": "standard deviation of those returns",
    "evaluation/return_iqm": "interquartile mean of those returns",
    "evaluation/return_low": "lower end of the 95 % bootstrap interval of the mean",
    "evaluation/return_high": "upper end of the 95 % bootstrap interval of the mean",
    "evaluation/length_mean": "env steps of the evaluation's episodes",
    "evaluation/episodes": "episodes of the evaluation",
    "learner/policy_loss": "the policy's part of the loss, mean per row; lower is better only within one iteration",
    "learner/value_loss": "squared error of the value head, mean per row, (scaled) reward units squared",
    "learner/entropy": "mean entropy of the policy over the batch, nats",
    "learner/approx_kl": "KL(old || new) by the k3 estimator over the last epoch, nats",
    "learner/clip_fraction": "share of rows whose ratio was clipped in the last epoch",
    "learner/explained_variance": "1 - Var(return - value) / Var(return), before the update",
    "learner/learning_rate": "step size of this iteration",
    "learner/clip": "clip range of this iteration",
    "learner/gradient_norm": "mean global gradient norm before clipping",
    "learner/gradient_steps": "optimizer steps of this iteration",
    "learner/epochs": "passes over the batch; fewer than configured after a KL stop",
    "learner/advantage_std": "standard deviation of the advantages before normalisation",
    "learner/td_error": "mean size of the TD error before the update, reward units",
    "learner/value_mean": "mean over states of the best action's value, reward units",
    "learner/pairs_visited": "state-action pairs that were tried at least once since the start of the run",
    "learner/rows_replayed": "rows drawn from all stored ones and learned from again in this iteration",
    "learner/critic_loss": "mean loss of the action values over the iteration's gradient steps",
    "learner/actor_loss": "mean loss of the actor over its gradient steps; minus the value of its actions, and entropy",
    "learner/temperature": "reward units that a nat of entropy is worth, mean over the gradient steps",
    "learner/replay_rows": "rows in the replay window",
    "learner/change_max": "largest change of any action value in this sweep over the table, reward units",
    "learner/exploration": "epsilon, or temperature, that the next version explores with",
}


def check(values: Mapping[str, float]) -> None:
    """ValueError naming the first metric that NAMES does not define."""
    for name in values:
        if name not in NAMES:
            raise ValueError(f"metric {name!r} is not defined; add it with its meaning to spark_rl.metrics.NAMES")
