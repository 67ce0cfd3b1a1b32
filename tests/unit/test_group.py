"""Groups of environments: what they return is what the environments did, in every way of resetting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import toys
from gymnasium.vector import AutoresetMode
from helpers import env_spec

from spark_rl import seeding
from spark_rl.envs.group import Group, NativeGroup, SyncGroup, make_group
from spark_rl.envs.make import make_single
from spark_rl.envs.spec import EnvSpec
from spark_rl.errors import RunError

STEPS = 40


def group_of(env: EnvSpec, *, native: bool, num_envs: int = 4, first_env: int = 6) -> Group:
    return make_group(env, native=native, seed=9, stream=seeding.ENVIRONMENT, first_env=first_env, num_envs=num_envs)


# What a test compares: per environment the episodes, each a list of (observation, action, reward, terminated,
# truncated, true successor).
Episodes = list[list[list[tuple[Any, ...]]]]


def lived(group: Group, steps: int = STEPS, action_of: Callable[[int, int, int], int] | None = None) -> Episodes:
    """Drive a group and take its facts apart by hand, with the action chosen by (environment, episode, step)."""
    choose = action_of or (lambda env, episode, t: (env + episode + t) % 2)
    group.start(0)
    episodes: Episodes = [[[]] for _ in range(group.num_envs)]
    for _ in range(steps):
        seen = {name: values.copy() for name, values in group.observation.items()}[""]
        pending = group.pending.copy()
        action = np.array([choose(i, len(e) - 1, len(e[-1])) for i, e in enumerate(episodes)])
        step = group.step(action)
        after = group.observation[""]
        for i, mine in enumerate(episodes):
            if pending[i]:
                continue
            over = step.terminated[i] or step.truncated[i]
            successor = after[i]
            if over and step.final is not None:
                assert step.ended is not None
                successor = step.final[""][step.ended.tolist().index(i)]
            facts = (seen[i].tolist(), int(action[i]), float(step.reward[i]), bool(step.terminated[i]),
                     bool(step.truncated[i]), successor.tolist())  # fmt: skip
            mine[-1].append(facts)
            if over:
                mine.append([])
    return episodes


def by_hand(env: int, ordinal: int) -> list[tuple[Any, ...]]:
    """What ScriptedVector does in one episode, from its description alone."""
    length = 1 + (env * 7 + ordinal * 5) % 6
    cut = (env + ordinal) % 3 == 0
    rows = []
    for t in range(length):
        action, end = (env + ordinal + t) % 2, t == length - 1
        rows.append(([env, ordinal, t], action, 100.0 * ordinal + (t + 1) + action / 2, end and not cut, end and cut,
                     [env, ordinal, t + 1]))  # fmt: skip
    return rows


@pytest.mark.parametrize("mode", AutoresetMode)
def test_every_autoreset_mode_gives_the_same_episodes(mode: AutoresetMode) -> None:
    group = group_of(env_spec(f"toys:toys/{mode.name}-v0"), native=True)
    assert isinstance(group, NativeGroup)
    assert group.resets_in_next_step == (mode is AutoresetMode.NEXT_STEP)
    episodes = lived(group)
    kinds = {(row[3], row[4]) for mine in episodes for episode in mine for row in episode}
    assert kinds == {(False, False), (True, False), (False, True)}  # the case has all three
    for env, mine in enumerate(episodes):
        assert len(mine) > 5
        for ordinal, episode in enumerate(mine):
            wanted = by_hand(env, ordinal)
            assert episode == (wanted if ordinal < len(mine) - 1 else wanted[: len(episode)])
        assert group.episode[env] == len(mine) - 1


@pytest.mark.parametrize("mode", AutoresetMode)
def test_steps_are_transitions_except_where_a_step_only_resets(mode: AutoresetMode) -> None:
    episodes = lived(group_of(env_spec(f"toys:toys/{mode.name}-v0"), native=True))
    for mine in episodes:
        rows, ends = sum(map(len, mine)), len(mine) - 1
        resets = STEPS - rows
        if mode is AutoresetMode.NEXT_STEP:
            assert resets == ends - (mine[-1] == [] and resets < ends)  # the last end may still wait for its reset
        else:
            assert resets == 0


def test_the_checker_above_catches_a_reset_observation_in_place_of_the_final_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(self: NativeGroup, info: dict[str, Any], ended: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[ended] for name, values in self.observation.items()}  # SAME_STEP: already the next episode

    monkeypatch.setattr(NativeGroup, "_final_of", wrong)
    with pytest.raises(AssertionError):
        test_every_autoreset_mode_gives_the_same_episodes(AutoresetMode.SAME_STEP)


def test_the_checker_above_catches_reset_steps_counted_as_transitions(monkeypatch: pytest.MonkeyPatch) -> None:
    original = NativeGroup.step

    def wrong(self: NativeGroup, action: np.ndarray) -> Any:
        step = original(self, action)
        self.pending = np.zeros_like(self.pending)
        return step

    monkeypatch.setattr(NativeGroup, "step", wrong)
    with pytest.raises(AssertionError):
        test_every_autoreset_mode_gives_the_same_episodes(AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize(
    "env", [env_spec("CartPole-v1", max_episode_steps=12), env_spec("toys:toys/Scripted-v0")], ids=str
)
def test_a_sync_group_does_what_its_environments_do_one_by_one(env: EnvSpec) -> None:
    start = 1 if env.id.startswith("toys") else 0
    choose = lambda i, episode, t: start + (i + episode + t * (episode % 2)) % 2  # noqa: E731
    group = group_of(env, native=False)
    assert isinstance(group, SyncGroup)
    episodes = lived(group, action_of=choose)
    assert any(row[3] for mine in episodes for episode in mine for row in episode)
    assert any(row[4] for mine in episodes for episode in mine for row in episode)
    for i, mine in enumerate(episodes):
        single = make_single(env)
        for ordinal, episode in enumerate(mine):
            seed = seeding.integer(9, seeding.ENVIRONMENT, 6 + i, ordinal)
            observation, _ = single.reset(seed=seed)
            for t, row in enumerate(episode):
                action = choose(i, ordinal, t)
                after, reward, terminated, truncated, _ = single.step(action)
                assert row == (observation.tolist(), action, reward, terminated, truncated, after.tolist())
                observation = after
            if ordinal < len(mine) - 1:
                assert terminated or truncated
        assert group.seeds()[i] == seed  # type: ignore[index]


def test_native_cartpole_ends_where_gymnasium_says_and_resets_cost_a_step() -> None:
    """Against gymnasium's own vector environment, stepped here without any of our code."""
    group = group_of(env_spec("CartPole-v1"), native=True, num_envs=3)
    group.start(0)
    env = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="vector_entry_point")
    observation, _ = env.reset(seed=seeding.integer(9, seeding.ENVIRONMENT, 6, 0))
    rng, pending, ends = np.random.default_rng(0), np.zeros(3, bool), 0
    for _ in range(120):
        np.testing.assert_array_equal(group.observation[""], observation)
        np.testing.assert_array_equal(group.pending, pending)
        action = rng.integers(0, 2, 3)
        step = group.step(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_array_equal(step.reward, reward)
        np.testing.assert_array_equal(step.terminated, terminated)
        pending = terminated | truncated
        ends += pending.sum()
    assert ends > 5
    assert group.episode.sum() == ends


def test_actions_reach_the_recorder_as_they_were_whatever_the_environment_does_to_them() -> None:
    group = group_of(env_spec("toys:Greedy"), native=False, num_envs=2)
    group.start(0)
    action = np.array([[0.25, 0.5], [-0.5, 1.0]], np.float32)
    step = group.step(action)
    assert action.tolist() == [[0.25, 0.5], [-0.5, 1.0]]
    assert step.reward.tolist() == [1.5, 1.0]


@pytest.mark.parametrize(
    ("fault", "got"),
    [
        ("raise", "got ArithmeticError: the wheel came off"),
        ("shape", r"got ValueError: observation '' has the shape \(\); its space says \(2,\)"),
        ("outside", r"got ValueError: observation '' is array\(4\), outside its space \(discrete, n \[4\]"),
    ],
)
def test_a_broken_step_is_named_with_environment_seed_step_and_action(fault: str, got: str) -> None:
    group = group_of(env_spec("toys:Faulty", fault=fault), native=False, num_envs=2)
    group.start(0)
    for _ in range(2):
        group.step(np.array([1, 0]))
    with pytest.raises(RunError, match=got) as caught:
        group.step(np.array([1, 0]))
    seed = seeding.integer(9, seeding.ENVIRONMENT, 6, 0)
    where = rf"environment toys:Faulty number 6, episode 0 \(seed {seed}\), step 2, action .*1"
    caught.match(where)


def test_a_broken_reset_is_named_with_its_seed() -> None:
    seed = seeding.integer(9, seeding.ENVIRONMENT, 6, 0)
    with pytest.raises(RunError, match=rf"toys:Faulty number 6: got ArithmeticError: no way .*reset\(seed={seed}\)"):
        group_of(env_spec("toys:Faulty", fault="reset"), native=False).start(0)


def test_a_broken_vector_step_is_named_with_its_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, action: Any) -> Any:
        raise ArithmeticError("no")

    monkeypatch.setattr(toys.ScriptedVector, "step", broken)
    group = group_of(env_spec("toys:toys/NEXT_STEP-v0"), native=True)
    group.start(0)
    with pytest.raises(RunError, match="environments 6 to 9: got ArithmeticError: no; .*'sync'"):
        group.step(np.zeros(4, np.int64))


@pytest.mark.parametrize("native", [True, False])
def test_a_resumed_group_goes_on_as_the_original_does(native: bool) -> None:
    env = env_spec("CartPole-v1", vectorization="native" if native else "sync")
    one, other = group_of(env, native=native), group_of(env, native=native)
    one.start(0)
    rng = np.random.default_rng(1)
    while not one.pending.any() and not (one.episode > 1).any():  # in the middle of things, a reset still due
        one.step(rng.integers(0, 2, 4))
    other.resume(one.carry(with_state=True))
    for _ in range(60):
        np.testing.assert_array_equal(one.observation[""], other.observation[""])
        np.testing.assert_array_equal(one.pending, other.pending)
        np.testing.assert_array_equal(one.episode, other.episode)
        action = rng.integers(0, 2, 4)
        a, b = one.step(action), other.step(action)
        np.testing.assert_array_equal(a.reward, b.reward)
        np.testing.assert_array_equal(a.terminated, b.terminated)
