"""The exact solver against published optima, simulation, and gymnasium itself."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import env_spec

from spark_rl.envs.make import make_single
from spark_rl.errors import UserError
from spark_rl.evaluation import exact

FROZEN_LAKE = env_spec("FrozenLake-v1")
LARGE_LAKE = env_spec("FrozenLake8x8-v1")
CLIFF = env_spec("CliffWalking-v1", max_episode_steps=200)
TAXI = env_spec("Taxi-v4")


# Linear algebra over the same table gave these (14/17 for the first, by hand); discount -> value from the start.
@pytest.mark.parametrize(
    ("env", "discount", "wanted"),
    [
        (FROZEN_LAKE, 1.0, 14 / 17),
        (FROZEN_LAKE, 0.99, 0.542025931984),
        (FROZEN_LAKE, 0.95, 0.180471578386),
        (FROZEN_LAKE, 0.9, 0.068890904882),
        (env_spec("FrozenLake-v1", is_slippery=False), 0.99, 0.99**5),
        (CLIFF, 1.0, -13.0),
        (CLIFF, 0.99, -12.247897700103),
        (TAXI, 1.0, 7.93),
        (TAXI, 0.99, 6.327464314919),
        (TAXI, 0.9, -1.263323099040),
    ],
)
def test_optimal_values(env, discount: float, wanted: float) -> None:
    model = exact.model_of(env)
    q, _ = exact.value_iteration(model, discount)
    assert model.start @ q.max(axis=1) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("env", "sweeps"), [(FROZEN_LAKE, 703), (CLIFF, 14), (TAXI, 18)])
def test_sweeps_until_value_iteration_settles(env, sweeps: int) -> None:
    # The reference counts may or may not include the sweep that only confirms.
    assert abs(exact.value_iteration(exact.model_of(env), 0.99)[1] - sweeps) <= 1


@pytest.mark.parametrize(("discount", "wanted"), [(0.99, 0.740164897759), (0.95, 0.729766017419)])
def test_a_greedy_policys_value_within_the_time_limit(discount: float, wanted: float) -> None:
    model = exact.model_of(FROZEN_LAKE)
    q, _ = exact.value_iteration(model, discount)
    greedy = exact.deterministic(q.argmax(axis=1), 4)
    assert exact.policy_value(model, greedy, horizon=exact.horizon_of(model)) == pytest.approx(wanted, abs=1e-9)
    assert exact.best_value(model, horizon=100) == pytest.approx(0.744190287829, abs=1e-9)


@pytest.mark.parametrize(
    ("env", "wanted"), [(FROZEN_LAKE, 0.013939795959), (LARGE_LAKE, 0.001901395495), (CLIFF, -2079.116),
                        (TAXI, -771.091)]
)  # fmt: skip
def test_the_uniform_policys_value(env, wanted: float) -> None:
    model = exact.model_of(env)
    uniform = np.full((model.num_states, model.num_actions), 1 / model.num_actions)
    assert exact.policy_value(model, uniform, horizon=model.max_episode_steps) == pytest.approx(wanted, rel=1e-6)


def test_a_policys_value_is_the_mean_return_of_its_episodes() -> None:
    model, env = exact.model_of(FROZEN_LAKE), make_single(FROZEN_LAKE)
    action = exact.value_iteration(model, 0.9)[0].argmax(axis=1)
    returns = []
    for seed in range(400):
        state, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            state, reward, terminated, truncated, _ = env.step(int(action[state]))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    value = exact.policy_value(model, exact.deterministic(action, 4), horizon=100)
    assert abs(np.mean(returns) - value) < 4 * np.std(returns) / 20


def test_an_environment_without_a_table_is_refused() -> None:
    with pytest.raises(UserError, match="no table of transitions"):
        exact.model_of(env_spec("CartPole-v1"))
    with pytest.raises(UserError, match="set env.max_episode_steps"):
        exact.horizon_of(exact.model_of(env_spec("CliffWalking-v1")))


@pytest.mark.parametrize("size", [2, 10])
def test_the_deep_seas_table_says_what_its_steps_do_and_its_optimum_is_0_99(size: int) -> None:
    env = env_spec("spark_rl.envs.gridworlds:DeepSea", size=size, mapping_seed=3, max_episode_steps=size)
    model, world = exact.model_of(env), make_single(env)
    assert exact.best_value(model, horizon=size) == pytest.approx(0.99)
    rng, table = np.random.default_rng(0), world.unwrapped.P
    for _ in range(20):
        state, _ = world.reset()
        for t in range(size):
            action = int(rng.integers(2))
            [(_, after, reward, end)] = table[int(state)][action]
            state, got, terminated, _, _ = world.step(action)
            assert (int(state), got, terminated) == (after, reward, end) and terminated == (t == size - 1)
