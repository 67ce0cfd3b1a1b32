"""Learning in tables against loops over rows, closed forms, and itself on other splits of the same rows."""

from __future__ import annotations

from dataclasses import fields, replace

import gymnasium as gym
import numpy as np
import pytest

from spark_rl.algorithms.tabular import Tabular
from spark_rl.algorithms.tabular_config import TabularConfig
from spark_rl.data.batch import Batch
from spark_rl.envs.spaces import action_spec, observation_spec
from spark_rl.learner_base import pack_state, unpack_state
from spark_rl.policies.spec import PolicySpec
from spark_rl.policies.tabular import behaviour
from spark_rl.tabular.counted import Counted, merge
from spark_rl.tabular.steps import StepSizes

STATES, ACTIONS, DISCOUNT = 7, 3, 0.9
SPEC = PolicySpec(
    observation=observation_spec(gym.spaces.Discrete(STATES), "test"),
    action=action_spec(gym.spaces.Discrete(ACTIONS, start=5), "test"),
    kind="tabular",
)
METHODS = ["q_learning", "double_q_learning", "sarsa", "expected_sarsa"]


def random_batch(num_envs: int, steps: int, seed: int) -> Batch:
    """Episodes with both kinds of ends; every environment has `steps` rows, and its last one is a fragment's end."""
    rng = np.random.default_rng(seed)
    num = num_envs * steps
    state, after = rng.integers(0, STATES, num), rng.integers(0, STATES, num)
    terminated = rng.random(num) < 0.1
    truncated = (rng.random(num) < 0.1) & ~terminated
    ends = terminated | truncated
    ends[steps - 1 :: steps] = True
    last = np.flatnonzero(ends)
    assert terminated.any() and truncated.any() and len(last) > (terminated | truncated).sum()
    return Batch(
        observation={"": state}, action=5 + rng.integers(0, ACTIONS, num), raw_action=None,
        reward=rng.choice([0.0, -0.1, 1.0 / 3.0], num), terminated=terminated, truncated=truncated,
        action_log_prob=np.zeros(num, np.float32), policy_version=np.zeros(num, np.int64),
        episode_id=np.arange(num) // 4, t=(np.arange(num) % 4).astype(np.int32),
        env_index=np.repeat(np.arange(num_envs), steps).astype(np.int32), last_row=last,
        final_observation={"": after[last]},
    )  # fmt: skip


def learner(**options) -> Tabular:
    defaults = {"discount": DISCOUNT, "epsilon": 0.3, "step_size": 0.4, "step_size_power": 0.6}
    return Tabular(TabularConfig(**{"name": "q_learning"} | defaults | options), SPEC, seed=3)


def loop(batch: Batch, method: str, coin: np.ndarray, *, frozen: bool) -> np.ndarray:
    """The methods as textbooks write them: row after row, from values of before the batch (`frozen`) or of now."""
    q, n = np.zeros((2, STATES, ACTIONS)), np.zeros((2, STATES, ACTIONS))
    final = dict(zip(batch.last_row.tolist(), batch.final_observation[""].tolist(), strict=True))
    start = q.copy()
    explore = {"explore.epsilon": np.array(0.3)}
    for i in range(batch.num_rows):
        values = start if frozen else q
        s, a = batch.observation[""][i], batch.action[i] - 5
        after = final.get(i, batch.observation[""][min(i + 1, batch.num_rows - 1)])
        own = int(coin[i])
        expected = behaviour(values[own, [after]], None, explore)[0] @ values[own, after]
        ahead = {
            "q_learning": values[own, after].max(),
            "double_q_learning": values[1 - own, after, values[own, after].argmax()],
            "expected_sarsa": expected,
            "sarsa": expected if i in final else values[own, after, batch.action[min(i + 1, batch.num_rows - 1)] - 5],
        }[method]
        target = batch.reward[i] + (0.0 if batch.terminated[i] else DISCOUNT * ahead)
        n[own, s, a] += 1
        q[own, s, a] += 0.4 / n[own, s, a] ** 0.6 * (target - q[own, s, a])
    return q.mean(axis=0) if method == "double_q_learning" else q[0]


def coins(made: Tabular, batch: Batch) -> np.ndarray:
    from spark_rl.tabular.counted import rows_of

    return rows_of(batch, made.states, made.action, made.counting).coin


@pytest.mark.parametrize("method", METHODS)
def test_serial_learning_is_the_textbooks_loop(method: str) -> None:
    made, batch = learner(name=method, mode="serial"), random_batch(4, 50, seed=1)
    made.update(batch, iteration=0, progress=0.0)
    wanted = loop(batch, method, coins(made, batch), frozen=False)
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(made.q, wanted, atol=1e-13)


def test_the_usual_bug_is_not_what_the_loop_computes() -> None:
    """A time limit that counts as an end gives other values: the equality above can fail."""
    batch = random_batch(4, 50, seed=1)
    bug = replace(batch, terminated=batch.terminated | batch.truncated)
    none = np.zeros(batch.num_rows, np.int64)
    difference = loop(batch, "q_learning", none, frozen=False) - loop(bug, "q_learning", none, frozen=False)
    assert np.abs(difference).max() > 1e-3


def test_double_learning_tosses_fair_coins_that_depend_on_the_place_in_the_run_alone() -> None:
    made, batch = learner(name="double_q_learning"), random_batch(40, 100, seed=1)
    coin = coins(made, batch)
    assert abs(coin.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(coin))
    assert abs(np.corrcoef(coin[:-1], coin[1:])[0, 1]) < 4 / np.sqrt(len(coin))
    np.testing.assert_array_equal(coin, coins(learner(name="double_q_learning"), batch))


@pytest.mark.parametrize("power", [0.0, 0.6, 1.0])
def test_a_step_with_the_mean_is_as_far_as_as_many_steps(power: float) -> None:
    for first in (1.0, 0.3):
        sizes = StepSizes(first=first, power=power, visits=2.0)
        for before, num in ((0, 1), (0, 9), (5, 1), (100, 40), (3, 0)):
            kept = np.prod(1.0 - sizes.size(np.arange(before + 1, before + num + 1)))
            fraction = sizes.fraction(np.array([before]), np.array([num]))[0]
            assert fraction == pytest.approx(1.0 - kept, abs=1e-13)


def test_step_sizes_of_one_over_n_are_running_means_also_for_millions_of_visits() -> None:
    sizes = StepSizes(first=1.0, power=1.0, visits=1.0)
    before, num = np.array([0, 10, 1000, 3_000_000, 1_048_000]), np.array([7, 5, 1, 1000, 5000])
    np.testing.assert_allclose(sizes.fraction(before, num), num / (num + before), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_parallel_learning_makes_one_step_with_the_values_of_before(method: str) -> None:
    """With one visit a pair it is the loop with frozen values; with more, the mean target takes the place of each."""
    made, batch = learner(name=method), random_batch(2, 60, seed=2)
    made._tables[:] = np.random.default_rng(0).normal(size=made._tables.shape)
    start = made._tables.copy()
    made.update(batch, iteration=0, progress=0.0)
    coin, final = (
        coins(learner(name=method), batch),
        dict(zip(batch.last_row, batch.final_observation[""], strict=True)),
    )
    for own in range(len(start)):
        for s in range(STATES):
            for a in range(ACTIONS):
                targets = []
                for i in np.flatnonzero((batch.observation[""] == s) & (batch.action == a + 5) & (coin == own)):
                    after = final.get(i, batch.observation[""][min(i + 1, 119)])
                    value, other = start[own, after], start[1 - own, after] if len(start) > 1 else start[0, after]
                    expected = behaviour(value[None], None, {"explore.epsilon": np.array(0.3)})[0] @ value
                    ahead = {
                        "q_learning": value.max(), "double_q_learning": other[value.argmax()],
                        "expected_sarsa": expected,
                        "sarsa": expected if i in final else value[batch.action[min(i + 1, 119)] - 5],
                    }[method]  # fmt: skip
                    targets.append(batch.reward[i] + (0.0 if batch.terminated[i] else DISCOUNT * ahead))
                kept = np.prod(1 - 0.4 / np.arange(1, len(targets) + 1) ** 0.6)
                wanted = kept * start[own, s, a] + (1 - kept) * (np.mean(targets) if targets else 0.0)
                assert made._tables[own, s, a] == pytest.approx(wanted, abs=1e-12)


def split(batch: Batch, groups: int) -> list[Batch]:
    """Whole environments to each group, as groups have them."""
    parts = []
    for chosen in np.array_split(np.unique(batch.env_index), groups):
        rows = np.flatnonzero(np.isin(batch.env_index, chosen))
        last = np.isin(batch.last_row, rows)
        columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
        plain = {n: v[rows] for n, v in columns.items() if isinstance(v, np.ndarray) and n != "last_row"}
        parts.append(replace(
            batch, **plain, observation={"": batch.observation[""][rows]},
            last_row=batch.last_row[last] - rows[0], final_observation={"": batch.final_observation[""][last]},
        ))  # fmt: skip
    return parts


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("groups", [2, 5, 8])
def test_any_number_of_groups_gives_the_table_of_one(method: str, groups: int) -> None:
    from spark_rl.tabular.counted import rows_of

    one, many = learner(name=method), learner(name=method)
    for k in range(4):
        batch = random_batch(8, 40, seed=k)
        one.update(batch, iteration=k, progress=0.0)
        parts = [merge([rows_of(part, many.states, many.action, many.counting)]) for part in split(batch, groups)]
        order = np.random.default_rng(k).permutation(groups)  # whoever is done first
        merged = merge([merge([parts[i] for i in order[:1]]), merge([parts[i] for i in order[1:]])])
        assert merged.num_rows == batch.num_rows
        many.update(merged, iteration=k, progress=0.0)
    assert np.abs(one.q).max() > 0.1
    np.testing.assert_array_equal(one.q, many.q)  # stricter than 1e-12: counts are integers


def test_merging_counts_every_distinct_transition() -> None:
    rng = np.random.default_rng(0)
    columns = {f.name: rng.integers(0, 2, 300) for f in fields(Counted)}
    columns |= {
        "terminated": columns["terminated"] > 0,
        "reward": columns["reward"] / 3.0,
        "count": columns["count"] + 1,
    }
    merged = merge([Counted(**columns)])
    found: dict[tuple, int] = {}
    for row in zip(*(columns[f.name] for f in fields(Counted)), strict=True):
        found[row[:-1]] = found.get(row[:-1], 0) + row[-1]
    got = {row[:-1]: row[-1] for row in zip(*merged.arrays().values(), strict=True)}
    assert got == found and len(got) > 100


def test_replay_learns_from_rows_of_earlier_iterations() -> None:
    def rewards(batch: Batch, value: float) -> Batch:
        return replace(batch, reward=np.full(batch.num_rows, value), terminated=np.ones(batch.num_rows, bool))

    made = learner(step_size=0.005, step_size_power=0.0, replay_ratio=200.0)
    made.update(rewards(random_batch(2, 200, seed=0), 1.0), iteration=0, progress=0.0)
    metrics = made.update(rewards(random_batch(2, 200, seed=1), 0.0), iteration=1, progress=0.5)
    assert metrics["learner/rows_replayed"] == 200 * 400
    np.testing.assert_allclose(made.q, 0.5, atol=0.25)  # either batch alone would lead to 1 or to 0


@pytest.mark.parametrize("method", ["q_learning", "double_q_learning"])
def test_a_state_saved_and_loaded_goes_on_to_the_bit(method: str) -> None:
    made = learner(name=method, replay_ratio=2.0, epsilon_end=0.1)
    made.update(random_batch(4, 40, seed=0), iteration=0, progress=0.5)
    other = learner(name=method, replay_ratio=2.0, epsilon_end=0.1)
    other.load_state_dict(unpack_state(*pack_state(made.state_dict())))
    for each in (made, other):
        each.update(random_batch(4, 40, seed=1), iteration=1, progress=0.6)
    assert all(np.array_equal(made.weights()[name], other.weights()[name]) for name in made.weights())


def test_exploration_travels_with_the_weights() -> None:
    made = learner(epsilon=0.8, epsilon_end=0.2, schedule_fraction=0.5, epsilon_ladder=7.0)
    assert made.weights()["explore.epsilon"] == 0.8 and made.weights()["explore.ladder"] == 7.0
    made.update(random_batch(2, 60, seed=0), iteration=1, progress=0.25)
    assert made.weights()["explore.epsilon"] == pytest.approx(0.5)
    counting = learner(exploration="ucb")
    counting.update(random_batch(2, 60, seed=0), iteration=0, progress=0.0)
    assert counting.weights()["count"].sum() == 120


def test_a_count_bonus_is_added_to_rewards() -> None:
    batch = random_batch(2, 60, seed=0)
    batch = replace(batch, terminated=np.ones(120, bool), reward=np.zeros(120))
    made = learner(count_bonus=2.0, step_size=1.0, step_size_power=1.0)
    made.update(batch, iteration=0, progress=0.0)
    count = np.zeros((STATES, ACTIONS))
    np.add.at(count, (batch.observation[""], batch.action - 5), 1)
    np.testing.assert_allclose(made.q[count > 0], 2.0 / np.sqrt(count[count > 0]))


def test_replay_of_on_policy_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="take replay_ratio out"):
        learner(name="sarsa", replay_ratio=1.0)
