"""The page from made-up rows: no Spark. What stands in it, what must not, and the pictures by what they draw."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

pytest.importorskip("pyspark")  # the report's package opens runs through Spark

from spark_rl.report import page, pictures, plots
from spark_rl.report.data import Report
from spark_rl.report.figures import FIGURES, TIME_PARTS
from spark_rl.report.style import NARROW, WIDE, Shape, compact, render_svg
from spark_rl.report.text import count, counted, number, seconds, size

VOID = {"meta", "br", "hr", "img", "link", "input"}
Rows = list[dict[str, Any]]


class Tags(HTMLParser):
    """Reads a page strictly: every tag is closed in its turn. Keeps texts, attributes and tag names."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.seen)


def rows_for(figure: Any, num_rows: int) -> Rows:
    """Rows with the columns that the figure's query has: all that end in a name after a comma or SELECT."""
    names = {
        "learning_curve": ["env_steps", "return_mean", "return_p25", "return_p75", "evaluation_return_mean",
                           "evaluation_return_low", "evaluation_return_high"],
        "returns_by_policy_version": ["policy_version", "num_episodes", "return_p05", "return_p25", "return_p50",
                                      "return_p75", "return_p95", "return_iqm"],
        "episode_length": ["env_steps", "length_mean", "length_p25", "length_p75"],
        "throughput": ["iteration", "env_steps_per_s", "rollout_env_steps_per_s"],
        "time": ["iteration", *TIME_PARTS],
    }.get(figure.key, ["env_steps", figure.needs[0]])  # fmt: skip
    assert all(name in figure.sql for name in names)
    return [{name: float(i + j) for j, name in enumerate(names)} for i in range(num_rows)]


def report(num_rows: int = 3, *, env_id: str = "CartPole-v1") -> Report:
    tables = {"run": {"env_steps": 100}, "rollout": {"num_groups": 1, "envs_per_group": 2, "steps_per_env": 5}}
    config = tables | {"env": {"id": env_id, "kwargs": {"note": "</dd><script>alert(1)</script>"}}}
    return Report(
        run={"run_uuid": "abc", "uri": "/runs/<b>&", "created_at": "2026-01-02 03:04", "env_id": env_id,
             "algorithm": "ppo", "seed": 7, "behavior": None, "config": json.dumps(config), "config_sha256": "f" * 64,
             "versions": {"numpy": "2.0"}},
        headline={"num_iterations": 3, "env_steps": 12345, "rows_committed": 12345, "num_episodes": 1,
                  "size_bytes": 4.2e6, "wall_s": 75.0, "env_steps_per_s": 164.6},
        evaluation={"policy_version": 3, "return_mean": 499.25, "return_low": 498.0, "return_high": 500.0,
                    "num_episodes": 100.0},
        exactly_once={"rows_stored": 12345, "num_episodes_broken": 0},
        lineage=[{"policy_version": i, "parent_version": i - 1 if i else None, "iteration": i, "num_rows": 9,
                  "committed_at": "2026-01-02 03:04:05", "sha256": f"{i:016d}{0:048d}"} for i in range(num_rows)],
        figures=[(figure, rows_for(figure, num_rows)) for figure in FIGURES],
    )  # fmt: skip


@pytest.fixture(scope="module")
def text() -> str:
    """The page of `report()`."""
    return page.render(report())


def test_the_page_says_what_the_report_says(text: str) -> None:
    read = Tags(text)
    words = " ".join(" ".join(read.words).split())
    for wanted in (
        "PPO on CartPole-v1", "3 of 10 planned iterations", "12,345", "499.2", "95 % interval 498 to 500",
        "100 episodes of policy version 3", "1 episode, 4.2 MB", "75.0 s", "exactly once", "0000000000000002",
    ):  # fmt: skip
        assert wanted in words, wanted


def test_the_page_is_one_file_that_needs_no_network(text: str) -> None:
    read = Tags(text)
    assert not [tag for tag, _ in read.seen if tag in ("img", "link", "iframe", "object", "image")]
    assert not [name for _, attributes in read.seen for name in attributes if name in ("src", "srcset", "action")]
    links = [value for _, attributes in read.seen for name, value in attributes.items() if name.endswith("href")]
    assert all(link is not None and link.startswith("#") for link in links)
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "default-src 'none'" in text


def test_every_figure_has_its_query_and_a_text_for_those_who_cannot_see_it(text: str) -> None:
    read = Tags(text)
    queries = [word for word in read.words if "SELECT" in word]
    for figure in FIGURES:
        assert figure.sql in queries, figure.key
    images = [attributes for _, attributes in read.seen if attributes.get("role") == "img"]
    assert len(images) == sum(1 if figure.small else 2 for figure in FIGURES)
    assert all(len(image["aria-label"] or "") > 20 for image in images)
    assert read.count("button") == len(queries)


def test_no_two_elements_share_an_id_and_every_reference_has_its_element(text: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'xlink:href="#([^"]+)"', text)) <= set(ids)


def test_what_a_run_says_cannot_become_markup() -> None:
    text = page.render(report(env_id='<img src=x onerror="alert(1)">'))
    assert "<script>alert" not in text
    assert "<img" not in text
    assert Tags(text).count("script") == 1
    assert '<img src=x onerror="alert(1)">' in " ".join(Tags(text).words)  # shown as it is


@pytest.mark.parametrize("num_rows", [1, 300])
def test_any_number_of_rows_can_be_drawn(num_rows: int) -> None:
    Tags(page.render(report(num_rows)))


def test_a_long_lineage_shows_both_ends_and_says_so() -> None:
    words = Tags(page.render(report(300))).words
    assert "275 more: the SQL below" in words
    assert {f"{version:016d}" for version in (0, 4, 280, 299)} <= set(words)
    assert not {f"{version:016d}" for version in (5, 279)} & set(words)
    assert sum(word == "2026-01-02 03:04:05" for word in words) == 25


def test_equal_reports_are_equal_bytes(text: str) -> None:
    assert page.render(report()) == text
    one = replace(report(), figures=report().figures[:1])
    assert pictures.pngs(one) == pictures.pngs(one)


def test_nothing_to_see_is_said() -> None:
    bare = replace(report(), figures=[(figure, []) for figure in FIGURES], evaluation=None, lineage=[])
    words = Tags(page.render(bare)).words
    assert words.count("No episode has ended in this run yet.") == 3
    assert "none yet" in words
    assert "Learner" not in words
    assert pictures.pngs(bare) == {}


def test_an_evaluation_is_drawn_where_no_episode_has_ended() -> None:
    row = {"env_steps": 8, "return_mean": None, "return_p25": None, "return_p75": None,
           "evaluation_return_mean": 5.0, "evaluation_return_low": 4.0, "evaluation_return_high": 7.0}  # fmt: skip
    figure = FIGURES[0]
    assert "greedy evaluation" in pictures.svgs(figure, [row])[WIDE]
    assert "middle half" not in pictures.svgs(figure, [row])[WIDE]
    assert "5" in figure.describe([row])


@pytest.mark.parametrize(("stored", "broken"), [(12346, 0), (12345, 1), (None, 0)])
def test_rows_that_are_not_there_once_are_no_success(stored: int | None, broken: int) -> None:
    wrong = replace(report(), figures=[], exactly_once={"rows_stored": stored, "num_episodes_broken": broken})
    text = page.render(wrong)
    assert "exactly once" not in text
    assert "12,345 were committed" in text


def test_a_collection_names_its_policy() -> None:
    run = report().run | {"behavior": json.dumps({"policy": "random"}), "algorithm": "ppo"}
    assert "CartPole-v1, collected by random" in page.render(replace(report(), run=run, figures=[]))


# ---- what is drawn ----


def drawn(draw: plots.Draw, layout: str = WIDE) -> Any:
    canvas = Canvas(figsize=(5, 3))
    draw(canvas, Shape(layout, 5, 3))
    return canvas.axes[0]


def test_the_learning_curve_bridges_iterations_without_an_end() -> None:
    names = ("env_steps", "return_mean", "return_p25", "return_p75")
    rows = [dict(zip(names, values, strict=True)) for values in [(10, 1, 0, 2), (20, None, None, None), (30, 5, 4, 9)]]
    axes = drawn(plots.curve(rows, prefix="return", color="blue", unit="return"))
    (mean,) = axes.lines
    assert mean.get_xydata().tolist() == [[10, 1], [30, 5]]
    (band,) = axes.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
    assert corners == {(10.0, 0.0), (10.0, 2.0), (30.0, 4.0), (30.0, 9.0)}


def test_evaluations_carry_their_interval() -> None:
    rows = [{"env_steps": 10, "return_mean": 1, "return_p25": 1, "return_p75": 1, "evaluation_return_mean": 5,
             "evaluation_return_low": 4, "evaluation_return_high": 7}]  # fmt: skip
    axes = drawn(plots.curve(rows, prefix="return", color="blue", unit="return", evaluations=True))
    (bars,) = [collection for collection in axes.collections if len(collection.get_paths()[0].vertices) == 2]
    assert bars.get_paths()[0].vertices.tolist() == [[10, 4], [10, 7]]


def test_stacked_bars_add_up_and_the_legend_has_shares() -> None:
    rows = [{"iteration": i, "a_s": 1.0 + i, "b_s": None if i == 0 else 2.0} for i in range(3)]
    axes = drawn(plots.stacked(rows, {"a_s": ("first", "blue"), "b_s": ("second", "teal")}))
    tops = [bar.get_y() + bar.get_height() for bar in axes.containers[1]]
    assert tops == [1.0, 4.0, 5.0]
    assert axes.get_legend_handles_labels()[1] == ["first 60%", "second 40%"]


def test_many_iterations_share_bars_that_show_their_mean() -> None:
    rows = [{"iteration": i, "a_s": float(i)} for i in range(600)]
    axes = drawn(plots.stacked(rows, {"a_s": ("first", "blue")}))
    assert [bar.get_height() for bar in axes.containers[0]] == pytest.approx(np.arange(600).reshape(60, 10).mean(1))


@pytest.mark.parametrize(("versions", "ticks"), [([0], [0]), ([3, 4], [3, 4]), (list(range(100)), None)])
def test_versions_are_whole_numbers_on_the_axis(versions: list[int], ticks: list[int] | None) -> None:
    names = [f"return_p{part}" for part in ("05", "25", "50", "75", "95")] + ["return_iqm"]
    rows = [{"policy_version": version} | dict.fromkeys(names, 1.0) for version in versions]
    found = drawn(plots.boxes(rows, unit="return"), NARROW).get_xticks()
    assert ticks is None or found.tolist() == ticks
    assert all(tick == round(tick) for tick in found)


def test_svg_takes_the_colours_of_the_page() -> None:
    def draw(canvas: Canvas, shape: Shape) -> None:
        canvas.add_subplot().plot([0, 1], color="#2f6db5")

    text = render_svg(draw, Shape(WIDE, 4, 3), "a")
    assert "var(--blue)" in text
    assert "#2f6db5" not in text
    assert text.startswith("<svg")
    assert not re.search(r"<svg[^>]* (width|height)=", text)
    assert "<text" in text  # not outlines


# ---- numbers as people read them ----


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (number(None), "–"), (number(float("nan")), "–"), (number(499.25), "499.2"), (number(500.0), "500"),
        (number(0.023456), "0.02346"), (number(12345.6), "12,346"), (number(-99.5), "-99.5"),
        (count(None), "–"), (count(1234567), "1,234,567"),
        (counted(1, "episode"), "1 episode"), (counted(0, "episode"), "0 episodes"),
        (seconds(None), "–"), (seconds(0.421), "0.42 s"), (seconds(99.94), "99.9 s"), (seconds(100), "1 min 40 s"),
        (seconds(3599.6), "1 h 00 min"), (seconds(7500), "2 h 05 min"),
        (size(850), "850 bytes"), (size(1234567), "1.23 MB"), (size(None), "–"),
        (compact(950), "950"), (compact(2000), "2k"), (compact(1.5e6), "1.5M"), (compact(-0.02), "−0.02"),
    ],
)  # fmt: skip
def test_numbers(got: str, wanted: str) -> None:
    assert got == wanted
