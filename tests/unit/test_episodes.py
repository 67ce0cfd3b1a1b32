"""Which episode a row belongs to: against a loop over the rows that carries its counters in plain variables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.envs.group import Carried
from spark_rl.rollout import episodes as module
from spark_rl.rollout.cursor import Cursor
from spark_rl.rollout.episodes import locate
from spark_rl.rollout.fragment import Rows

ITERATION, VERSION = 7, 6
FIELDS = ("env", "ordinal", "length", "terminated", "truncated", "first_iteration", "policy_version_min")


def random_rows(rng: np.random.Generator, num_envs: int, longest: int, end: float) -> Rows:
    counts = rng.integers(0, longest + 1, num_envs)
    total = int(counts.sum())
    terminated = rng.random(total) < end
    truncated = (rng.random(total) < end) & ~terminated
    # Small integers: their sums are exact, so the order of summation does not matter.
    reward = rng.integers(-9, 9, total).astype(np.float64)
    none = np.zeros(0)
    return Rows(observation={}, action=none, raw_action=None, reward=reward, terminated=terminated, truncated=truncated,
                log_prob=none, state=None, counts=counts, last_row=none, final_observation={})  # fmt: skip


def random_cursor(rng: np.random.Generator, num_envs: int) -> Cursor:
    t = rng.integers(0, 3, num_envs) * rng.integers(0, 50, num_envs)  # a third of them stand at a beginning
    carried = Carried(observation={}, pending=np.zeros(num_envs, bool), episode=rng.integers(0, 2**33, num_envs))
    so_far = np.where(t > 0, rng.integers(-99, 99, num_envs), 0.0)
    return Cursor(carried=carried, t=t.astype(np.int32), episode_return=so_far,
                  first_iteration=rng.integers(0, ITERATION, num_envs).astype(np.int32),
                  policy_version_min=rng.integers(0, VERSION, num_envs))  # fmt: skip


def by_loop(
    rows: Rows, cursor: Cursor, *, cut: bool
) -> tuple[list[tuple[int, int, int]], list[dict[str, Any]], list[Any]]:
    """Rows' places, the episodes that ended, and where each environment stands: row by row."""
    places, ended, after, row = [], [], [], 0
    for env, count in enumerate(rows.counts.tolist()):
        ordinal, t = int(cursor.carried.episode[env]), int(cursor.t[env])
        total = float(cursor.episode_return[env])
        began = int(cursor.first_iteration[env]) if t else ITERATION
        oldest = int(cursor.policy_version_min[env]) if t else VERSION
        for i in range(count):
            places.append((env, ordinal, t))
            t, total = t + 1, total + float(rows.reward[row])
            over = bool(rows.terminated[row] or rows.truncated[row])
            if over or (cut and i == count - 1):
                ended.append({"env": env, "ordinal": ordinal, "length": t, "episode_return": total,
                              "terminated": bool(rows.terminated[row]), "truncated": bool(rows.truncated[row]),
                              "first_iteration": began, "policy_version_min": oldest})  # fmt: skip
                t, total, began, oldest, ordinal = 0, 0.0, ITERATION, VERSION, ordinal + 1
            row += 1
        after.append((t, total, began, oldest))
    return places, ended, after


def check(seed: int, num_envs: int, longest: int, end: float, cut: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, cursor = random_rows(rng, num_envs, longest, end), random_cursor(rng, num_envs)
    wanted_places, wanted, after = by_loop(rows, cursor, cut=cut)
    places, episodes = locate(rows, cursor, ITERATION, VERSION, cut=cut)
    assert list(zip(places.env.tolist(), places.ordinal.tolist(), places.t.tolist(), strict=True)) == wanted_places
    assert episodes.episode_return.tolist() == [one["episode_return"] for one in wanted]
    for name in FIELDS:
        assert getattr(episodes, name).tolist() == [one[name] for one in wanted], name
    for env, (t, total, began, oldest) in enumerate(after):
        assert (cursor.t[env], cursor.episode_return[env]) == (t, total)
        if t:  # what stands at a beginning has no past
            assert (cursor.first_iteration[env], cursor.policy_version_min[env]) == (began, oldest)
    assert (cursor.t.dtype, cursor.first_iteration.dtype) == (np.int32, np.int32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), num_envs=st.integers(1, 6), longest=st.integers(0, 12),
    end=st.sampled_from([0.0, 0.1, 0.4, 1.0]), cut=st.booleans(),
)  # fmt: skip
def test_equals_the_loop_over_rows(seed: int, num_envs: int, longest: int, end: float, cut: bool) -> None:
    check(seed, num_envs, longest, end, cut)


def test_a_large_case_has_every_kind_of_segment() -> None:
    rng = np.random.default_rng(0)
    rows, cursor = random_rows(rng, 40, 12, 0.2), random_cursor(rng, 40)
    assert (rows.counts == 0).any()
    assert rows.terminated.any()
    assert rows.truncated.any()
    assert ((cursor.t > 0) & (rows.counts > 0)).any()
    assert (cursor.t == 0).any()
    check(0, 40, 12, 0.2, cut=False)
    check(0, 40, 12, 0.2, cut=True)


@pytest.mark.parametrize("bug", ["off by one", "carry lost", "first segment only"])
def test_the_loop_catches_the_usual_bugs(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = module.locate

    def wrong(rows: Rows, cursor: Cursor, iteration: int, policy_version: int, *, cut: bool) -> Any:
        if bug == "carry lost":
            cursor.episode_return[:] = 0
        if bug == "first segment only":
            cursor.policy_version_min[:] = 0
        places, episodes = original(rows, cursor, iteration, policy_version, cut=cut)
        if bug == "off by one":
            episodes.length[:] -= 1
        return places, episodes

    monkeypatch.setitem(globals(), "locate", wrong)
    with pytest.raises(AssertionError):
        check(0, 40, 12, 0.2, cut=False)
