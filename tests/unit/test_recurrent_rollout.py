"""The recurrent state on the executors' side: carried, stored, reset, and the same whichever way environments go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import collect, env_spec, hashes, read, rollout_spec, weights_for
from numpy.testing import assert_allclose, assert_array_equal

from spark_rl import seeding
from spark_rl.data.reader import to_batch
from spark_rl.envs.make import make_single
from spark_rl.envs.spec import EnvSpec
from spark_rl.errors import UserError
from spark_rl.policies.acting import ActingPolicy
from spark_rl.policies.load import load_acting
from spark_rl.rollout import run
from spark_rl.rollout.evaluate import EvaluationTask, evaluate_group
from spark_rl.rollout.spec import RolloutSpec

CARTPOLE = env_spec("CartPole-v1", max_episode_steps=13)
HIDDEN = env_spec("CartPole-v1", ("spark_rl.envs.wrappers:SelectObservation", {"indices": [0, 2]}))
UNITS = 4


def spec_for(place: Path, env: EnvSpec, kind: str = "lstm", **options: Any) -> RolloutSpec:
    spec = rollout_spec(place, env, **options)
    return replace(spec, policy=replace(spec.policy, recurrent=kind, recurrent_size=UNITS))


def check_states(spec: RolloutSpec, iterations: int) -> tuple[int, int]:
    """Every stored state is what a loop over the stored rows gives; how many ends and boundaries were crossed."""
    rows = read(spec.run_uri).to_pylist()
    policies = [load_acting(spec.policy, weights_for(spec.policy, k)) for k in range(iterations)]
    ends = boundaries = 0
    for env in {row["env_index"] for row in rows}:
        after = before = None
        for row in (row for row in rows if row["env_index"] == env):
            policy: ActingPolicy = policies[row["policy_version"]]
            wanted = policy.initial_state(1)
            if row["t"]:
                assert after is not None and before is not None
                wanted = after
                boundaries += before["policy_version"] != row["policy_version"]
            else:
                ends += before is not None
            state = np.array([row["state"]], np.float32)
            # One row alone and a row among others may differ in the last bits.
            assert_allclose(state, wanted, atol=1e-5)
            assert (row["t"] == 0) == (not state.any())
            after = policy.act_greedy({"": np.array([row["observation"]], np.float32)}, state).state
            before = row
    return ends, boundaries


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize(
    ("env", "carry"),
    [
        (CARTPOLE, "snapshot"),
        (replace(CARTPOLE, vectorization="sync"), "snapshot"),
        (CARTPOLE, "replay"),
        (env_spec("toys:toys/NEXT_STEP-v0"), "auto"),
        (env_spec("toys:toys/SAME_STEP-v0"), "auto"),
        (env_spec("toys:toys/DISABLED-v0"), "auto"),
    ],
)
def test_what_is_stored_is_the_state_before_each_step(tmp_path: Path, kind: str, env: EnvSpec, carry: str) -> None:
    spec = spec_for(tmp_path, env, kind, carry=carry)
    collect(spec, 5)
    ends, boundaries = check_states(spec, 5)
    assert ends >= 6
    assert boundaries >= 6


@pytest.mark.parametrize("bug", ["kept over an end", "forgotten between iterations"])
def test_the_loop_catches_a_state_that_is(tmp_path: Path, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_for(tmp_path, CARTPOLE)
    if bug == "kept over an end":
        honest = run.load_acting

        class Stubborn:
            def __init__(self, policy: Any, weights: bytes) -> None:
                self.policy = honest(policy, weights)

            def initial_state(self, num_envs: int) -> np.ndarray:
                return np.full((num_envs, spec.policy.state_size), 0.1, np.float32)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.policy, name)

        monkeypatch.setattr(run, "load_acting", Stubborn)
    else:
        decode = run.Cursor.decode
        monkeypatch.setattr(
            run.Cursor, "decode", lambda content: replace(c := decode(content), state=np.zeros_like(c.state))
        )
    run.forget()
    try:
        collect(spec, 5)
        with pytest.raises(AssertionError):
            check_states(spec, 5)
    finally:
        run.forget()


def test_live_environments_snapshots_and_replays_give_the_same_files(tmp_path: Path) -> None:
    env = replace(HIDDEN, max_episode_steps=13)
    files = {}
    for way, carry, before in (
        ("live", "snapshot", lambda k: None),
        ("snapshot", "snapshot", lambda k: run.forget()),
        ("replay", "replay", lambda k: run.forget()),
    ):
        spec = spec_for(tmp_path / way, env, carry=carry)
        history = collect(spec, 5, before=before)
        assert {report.source for reports in history[1:] for report in reports} == {way}
        files[way] = hashes(tmp_path / way, "transitions", "episodes")
    assert files["live"] == files["snapshot"] == files["replay"]


def test_the_batch_has_the_states_as_stored(tmp_path: Path) -> None:
    spec = spec_for(tmp_path, CARTPOLE)
    collect(spec, 2)
    table = read(tmp_path)
    batch = to_batch(table, spec.policy.observation, spec.policy.action)
    assert batch.state is not None and batch.state.dtype == np.float32
    assert_array_equal(batch.state, np.array(table["state"].to_pylist(), np.float32))
    assert batch.state.shape == (len(table), 2 * UNITS)
    plain = rollout_spec(tmp_path / "plain", CARTPOLE)
    collect(plain, 1)
    assert "state" not in pq.read_schema(next((tmp_path / "plain" / "transitions").rglob("*.parquet"))).names
    assert to_batch(read(tmp_path / "plain"), plain.policy.observation, plain.policy.action).state is None


@pytest.mark.parametrize("env", [CARTPOLE, HIDDEN])
def test_evaluation_carries_the_state_from_each_episodes_own_beginning(tmp_path: Path, env: EnvSpec) -> None:
    spec = spec_for(tmp_path, env)
    spec = replace(spec, native=False)
    weights = weights_for(spec.policy)
    found = evaluate_group(spec, EvaluationTask(policy_version=0, first_episode=3, num_episodes=5), weights)
    policy = load_acting(spec.policy, weights)
    for result in found:
        single = make_single(spec.env)
        # As an evaluation's group seeds it: by the episode's number.
        observation, _ = single.reset(seed=seeding.integer(spec.seed, seeding.EVALUATION, result.episode, 0))
        state, total, over = policy.initial_state(1), 0.0, False
        while not over:
            act = policy.act_greedy({"": observation[None]}, state)
            state = act.state
            observation, reward, terminated, truncated, _ = single.step(int(act.action[0]))
            total, over = total + float(reward), terminated or truncated
        assert result.episode_return == total


def test_only_the_chosen_elements_are_seen() -> None:
    env, full = make_single(HIDDEN), make_single(env_spec("CartPole-v1"))
    seen, _ = env.reset(seed=1)
    whole, _ = full.reset(seed=1)
    assert_array_equal(seen, whole[[0, 2]])
    assert env.observation_space.contains(seen)
    assert_array_equal(env.observation_space.high, full.observation_space.high[[0, 2]])


@pytest.mark.parametrize(
    ("env_id", "indices", "message"), [("CartPole-v1", [0, 4], "some of 0 to 3"), ("CartPole-v1", [], "some of 0 to 3"),
                                       ("Taxi-v4", [0], "a flat Box observation")]
)  # fmt: skip
def test_elements_that_are_not_there_are_a_user_error(env_id: str, indices: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_single(env_spec(env_id, ("spark_rl.envs.wrappers:SelectObservation", {"indices": indices})))
