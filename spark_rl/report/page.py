"""The report as one HTML file."""

from __future__ import annotations

import json
from importlib import resources
from itertools import groupby
from string import Template
from typing import Any

from spark_rl.report import data, html, pictures
from spark_rl.report.data import Report
from spark_rl.report.figures import Figure
from spark_rl.report.plots import Rows
from spark_rl.report.text import count, counted, number, seconds, size

# A lineage of thousands of versions is for SQL; the page shows both of its ends.
_LINEAGE_FIRST, _LINEAGE_LAST = 5, 20


def render(report: Report) -> str:
    """The whole page; equal reports give equal text."""
    config = json.loads(report.run["config"])
    title = _title(report)
    body = "\n".join([
        _header(report, title, config),
        _headline(report),
        *_figures(report),
        _lineage(report),
        _origin(report, config),
    ])  # fmt: skip
    parts = {"title": html.text(title), "body": body, "style": _file("page.css"), "script": _file("page.js")}
    return Template(_file("page.html")).substitute(parts)


def _file(name: str) -> str:
    return resources.files("spark_rl.report").joinpath(name).read_text(encoding="utf-8").rstrip()


def _title(report: Report) -> str:
    run = report.run
    if run["behavior"] is None:
        return f"{run['algorithm'].upper()} on {run['env_id']}"
    return f"{run['env_id']}, collected by {json.loads(run['behavior'])['policy']}"


def _header(report: Report, title: str, config: dict[str, Any]) -> str:
    run, rollout = report.run, config["rollout"]
    rows_planned = rollout["num_groups"] * rollout["envs_per_group"] * rollout["steps_per_env"]
    planned = config["run"]["env_steps"] // rows_planned
    done = count(report.headline["num_iterations"])
    line = f"Begun {run['created_at']} UTC · {done} of {count(planned)} planned iterations · seed {run['seed']}"
    return (
        f'<header><h1>{html.text(title)}</h1><p class="muted">{html.text(line)}</p>'
        f'<p class="muted mono">{html.text(run["uri"])}</p></header>'
    )


def _headline(report: Report) -> str:
    found, head = report.evaluation, report.headline
    if found is None:
        best = ("Greedy evaluation", "–", "none yet")
    else:
        interval = f"95 % interval {number(found['return_low'])} to {number(found['return_high'])}"
        episodes = f"{counted(found['num_episodes'], 'episode')} of policy version {found['policy_version']}"
        best = (
            "Greedy evaluation",
            number(found["return_mean"]),
            f"mean return, {interval}, {episodes}",
        )
    volume = f"{counted(head['num_episodes'], 'episode')}, {size(head['size_bytes'])}"
    cards = [
        best,
        ("Env steps", count(head["env_steps"]), volume),
        ("Wall time", seconds(head["wall_s"]), "collecting, learning, evaluating; without Spark's start"),
        ("Env steps per second", count(head["env_steps_per_s"]), "over that wall time"),
    ]
    boxes = "".join(
        html.card(
            f'<div class="label">{html.text(label)}</div><div class="value">{html.text(value)}</div>'
            f'<div class="detail">{html.text(detail)}</div>'
        )
        for label, value, detail in cards
    )
    queries = (data.HEADLINE_SQL, data.EVALUATION_SQL, data.EXACTLY_ONCE_SQL)
    unfolded = html.sql(";\n\n".join(queries), "SQL behind these numbers")
    return f'<section><div class="headline">{boxes}{_exactly_once(report)}</div>{unfolded}</section>'


def _exactly_once(report: Report) -> str:
    """The card that says whether the table holds what the commit records promise."""
    stored, committed = report.exactly_once["rows_stored"] or 0, report.headline["rows_committed"] or 0
    broken = report.exactly_once["num_episodes_broken"]
    if stored == committed and not broken:
        verdict = '<span class="good">✓ every committed row is there exactly once</span>'
    else:
        found = f"{count(committed)} were committed; {count(broken)} episodes have gaps or repeats"
        verdict = f'<span class="bad">{found}</span>'
    return html.card(
        f'<div class="label">Rows in the table</div><div class="value">{count(stored)}</div>'
        f'<div class="detail">{verdict}</div>'
    )


def _figures(report: Report) -> list[str]:
    sections = []
    for name, group in groupby(report.figures, key=lambda item: item[0].section):
        members = list(group)
        if not any(rows for _, rows in members) and all(figure.small for figure, _ in members):
            continue  # a collection has no learner
        drawn = [(figure.small, _figure(figure, rows)) for figure, rows in members]
        large = "".join(text for small, text in drawn if not small)
        small = "".join(text for small, text in drawn if small)
        grid = f'<div class="small">{small}</div>' if small else ""
        sections.append(f"<section><h2>{html.text(name)}</h2>{large}{grid}</section>")
    return sections


def _figure(figure: Figure, rows: Rows) -> str:
    if not rows:
        picture = f'<div class="absent">{html.text(figure.absent)}</div>'
    else:
        label = html.text(figure.describe(rows))
        drawings = pictures.svgs(figure, rows)
        # A small figure has one layout, for every window.
        picture = "".join(
            f'<div class="picture{"" if figure.small else f" {layout}"}" role="img" aria-label="{label}">{svg}</div>'
            for layout, svg in drawings.items()
        )
    caption = f"<figcaption><h3>{html.text(figure.title)}</h3><p>{html.text(figure.caption)}</p></figcaption>"
    unfolded = html.sql(figure.sql, "SQL behind this figure")
    return f'<figure class="card" id="{figure.key}">{caption}{picture}{unfolded}</figure>'


def _lineage(report: Report) -> str:
    """From weights to the rows they acted for: version, parent, iteration, rows, commit, hash."""
    rows = [
        (
            count(row["policy_version"]),
            count(row["parent_version"]),
            count(row["iteration"]),
            count(row["num_rows"]),
            row["committed_at"] or "–",
            row["sha256"][:16],
        )
        for row in report.lineage
    ]
    left_out = len(rows) - _LINEAGE_FIRST - _LINEAGE_LAST
    if left_out > 0:
        gap = ("…", "…", "…", "…", f"{left_out:,} more: the SQL below", "…")
        rows = [*rows[:_LINEAGE_FIRST], gap, *rows[-_LINEAGE_LAST:]]
    names = ("version", "learned from", "first iteration", "rows", "committed (UTC)", "weights sha256")
    note = "Every row of the table names the policy version that acted; every version is a file with this hash."
    table = html.table(names, rows, right=(0, 1, 2, 3))
    unfolded = html.sql(data.LINEAGE_SQL, "SQL behind this table")
    content = f'<p class="muted">{note}</p>{table}{unfolded}'
    return f"<section><h2>Lineage</h2>{html.card(content)}</section>"


def _origin(report: Report, config: dict[str, Any]) -> str:
    """The config, table by table, and the versions of what ran."""
    run = report.run
    identity = {"run": run["run_uuid"], "config sha256": run["config_sha256"], "seed": run["seed"]}
    cards = [html.card(f"<h3>[{html.text(name)}]</h3>{html.facts(_shown(table))}") for name, table in config.items()]
    made = [
        html.card(f"<h3>Identity</h3>{html.facts(identity)}"),
        html.card(f"<h3>Versions</h3>{html.facts(dict(sorted(run['versions'].items())))}"),
    ]
    return (
        f'<section><h2>Config</h2><div class="columns">{"".join(cards)}</div></section>'
        f'<section><h2>Made with</h2><div class="columns">{"".join(made)}</div>'
        f"{html.sql(data.RUN_SQL, 'SQL behind config and versions')}</section>"
    )


def _shown(table: dict[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in table.items()}
