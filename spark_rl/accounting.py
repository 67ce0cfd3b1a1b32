"""What an iteration gave and what it cost: metrics from the tasks' reports. Every planned step is accounted for."""

from __future__ import annotations

import numpy as np

from spark_rl.schema.reports import GroupReport


def rollout_metrics(reports: list[GroupReport], *, wall_s: float, staleness: int) -> dict[str, float]:
    """The `rollout/` and task-time metrics of one iteration, whose job took `wall_s` seconds.

    `staleness` is how many versions the acting policy was behind the newest one.
    """
    returns = np.array([value for report in reports for value in report.episode_returns])
    lengths = np.array([value for report in reports for value in report.episode_lengths])
    written = sum(report.rows_written for report in reports)
    row: dict[str, float] = {
        "rollout/episodes": len(returns),
        "rollout/rows_planned": sum(report.rows_planned for report in reports),
        "rollout/rows_written": written,
        "rollout/rows_reset": sum(report.rows_reset for report in reports),
        "rollout/bytes": sum(file.size_bytes for report in reports for file in report.files),
        "rollout/tasks_retried": sum(report.attempt > 0 for report in reports),
        "rollout/live": sum(report.source == "live" for report in reports),
        "rollout/restored": sum(report.source == "snapshot" for report in reports),
        "rollout/replayed": sum(report.source == "replay" for report in reports),
        "rollout/replayed_steps": sum(report.replayed_steps for report in reports),
        "rollout/staleness_max": staleness,
        "time/task_s_max": max(report.times_s["total"] for report in reports),
        "throughput/rollout_env_steps_per_s": written / wall_s,
    }
    for part in ("prepare", "step", "write"):
        row[f"time/{part}_s_mean"] = float(np.mean([report.times_s[part] for report in reports]))
    if len(returns):
        row |= {
            "rollout/return_mean": float(returns.mean()),
            "rollout/return_std": float(returns.std()),
            "rollout/return_min": float(returns.min()),
            "rollout/return_max": float(returns.max()),
            "rollout/length_mean": float(lengths.mean()),
        }
    return row
